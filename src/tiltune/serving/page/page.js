// Asks every model of the server the same thing at once, and shows the answers side by side.
"use strict";

const find = (id) => document.getElementById(id);
let models = [];
let running = null;

function headers() {
  const token = find("token").value;
  const found = { "Content-Type": "application/json" };
  if (token) found.Authorization = `Bearer ${token}`;
  return found;
}

async function askModels() {
  const answer = await fetch("v1/models", { headers: headers() });
  find("token-row").hidden = answer.status !== 401 && !find("token").value;
  find("write").disabled = !answer.ok;
  if (!answer.ok) {
    find("about").textContent = answer.status === 401 ? "Give the server's token." : "No answer.";
    return;
  }
  const listed = (await answer.json()).data.map((model) => model.id);
  // plain on the left, guided on the right
  models = listed.sort((one, other) => other.endsWith(":plain") - one.endsWith(":plain"));
  find("about").textContent = models.length > 1
    ? "The same weights, plain and guided by the learnt values."
    : "One model, plain. Start the server with --guided to see guidance beside it.";
}

function column(model) {
  const article = find("column").content.cloneNode(true).firstElementChild;
  article.querySelector("h2").textContent = model;
  find("columns").append(article);
  return { text: article.querySelector("pre"), verdict: article.querySelector(".verdict") };
}

function request(model) {
  const prompt = find("prompt").value;
  const body = { model, stream: true, temperature: Number(find("temperature").value || 1) };
  if (find("limit").value) body.max_tokens = Number(find("limit").value);
  if (find("seed").value) body.seed = Number(find("seed").value);
  const chat = find("chat").checked;
  if (chat) body.messages = [{ role: "user", content: prompt }];
  else body.prompt = prompt;
  return [chat ? "v1/chat/completions" : "v1/completions", body];
}

function told(shown, choice) {
  shown.text.textContent += choice.text ?? choice.delta?.content ?? "";
  if (!choice.finish_reason) return;
  const found = choice.tiltune;
  const cut = choice.finish_reason === "length" ? "cut at the token limit" : "";
  let word = "";
  if (found) word = { true: "satisfies", false: "violates", null: "not judged" }[found.satisfied];
  const reason = found && found.satisfied !== true && found.reason ? `: ${found.reason}` : "";
  shown.verdict.textContent = [word + reason, cut].filter(Boolean).join("; ");
  shown.verdict.className = `verdict ${word}`;
}

function failed(shown, message) {
  shown.verdict.textContent = message;
  shown.verdict.className = "verdict failed";
}

async function write(model, signal) {
  const shown = column(model);
  try {
    const [path, body] = request(model);
    const sent = { method: "POST", headers: headers(), body: JSON.stringify(body), signal };
    const answer = await fetch(path, sent);
    if (!answer.ok) return failed(shown, (await answer.json()).error.message);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = (waiting + part.value).split("\n\n");
      waiting = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") continue;
        const heard = JSON.parse(data);
        if (heard.error) return failed(shown, heard.error.message);
        heard.choices.forEach((choice) => told(shown, choice));
      }
    }
  } catch (error) {
    failed(shown, error.name === "AbortError" ? "stopped" : String(error));
  }
}

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const mine = running = new AbortController();
  find("columns").replaceChildren();
  find("stop").hidden = false;
  await Promise.all(models.map((model) => write(model, mine.signal)));
  if (running === mine) find("stop").hidden = true;
});
find("stop").addEventListener("click", () => running?.abort());
find("token").addEventListener("change", askModels);
askModels();
