"""The server as its clients meet it: the real openai client against a real uvicorn."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from served import Serving, a_run, posted, served
from tiltune.data.encode import Prompt
from tiltune.data.samples import SamplingLaw

NAME = "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def guided(run: Path) -> Iterator[Serving]:
    with served(run, guided=True) as found:
        yield found


def drawn(serving: Serving, text: str, law: SamplingLaw, seed: int) -> tuple[str, bool]:
    """What `decoding` draws of the prompt, and whether it ended."""
    contender = serving.served.contender
    prompt = Prompt(text, tuple(contender.loaded.tokenizer(text)["input_ids"]))
    contender.read_prompts([prompt])
    generator = torch.Generator().manual_seed(seed)
    samples = contender.draw([prompt.ids], law, generator=generator)
    ids = samples.ids[0, : int(samples.mask.sum())].tolist()
    return contender.loaded.tokenizer.decode(ids, skip_special_tokens=True), bool(samples.ended[0])


def test_64_clients_at_once_each_get_their_own_answer(guided: Serving) -> None:
    """None is lost, none answered twice, and each text is what `decoding` draws by its seed."""
    texts = ("the cat", "and", "the dog sat and the cat", "ran")
    before = guided.engine.load.tokens

    def ask(seed: int) -> Any:
        return guided.client().completions.create(
            model=NAME, prompt=texts[seed % 4], seed=seed, max_tokens=1 + seed % 7
        )

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    assert len({answer.id for answer in answers}) == 64
    for seed, answer in enumerate(answers):
        law = SamplingLaw(1 + seed % 7)
        text, ended = drawn(guided, texts[seed % 4], law, seed)
        [choice] = answer.choices
        assert (choice.text, choice.finish_reason) == (text, "stop" if ended else "length")
        assert answer.system_fingerprint.endswith("-guided")
        assert choice.model_extra["tiltune"]["satisfied"] is True
    written = sum(answer.usage.completion_tokens for answer in answers)
    assert guided.engine.load.tokens - before == written
    assert guided.engine.load.running == guided.engine.load.waiting == 0


def test_a_choice_is_a_request_with_the_next_seed(guided: Serving) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": ["the cat", "and"], "max_tokens": 5}
    both = guided.client().completions.create(**asked, n=3, seed=7)
    assert [choice.index for choice in both.choices] == list(range(6))
    for place, choice in enumerate(both.choices):
        prompt = asked["prompt"][place // 3]
        text, _ = drawn(guided, prompt, SamplingLaw(5), 7 + place % 3)
        assert choice.text == text


def test_plain_beside_guided(guided: Serving) -> None:
    asked: dict[str, Any] = {"prompt": "the", "max_tokens": 6, "n": 64, "seed": 0}
    names = [model.id for model in guided.client().models.list()]
    assert names == [NAME, f"{NAME}:plain"]
    assert guided.client().models.retrieve(f"{NAME}:plain").id == f"{NAME}:plain"
    plain = guided.client().completions.create(model=f"{NAME}:plain", **asked)
    assert plain.system_fingerprint.endswith("-plain")
    marks = [choice.model_extra["tiltune"] for choice in plain.choices]
    for choice, mark in zip(plain.choices, marks, strict=True):
        violates = any(word in choice.text.split() for word in tiny.FORBIDDEN)
        assert mark["satisfied"] is not violates and bool(mark["reason"]) == violates
    assert 0 < sum(mark["satisfied"] for mark in marks) < 64


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_adds_up_to_the_answer(guided: Serving, chat: bool) -> None:
    asked: dict[str, Any] = {"model": NAME, "seed": 3, "max_tokens": 6, "n": 6, "logprobs": 2}
    create: Any = guided.client().completions.create
    if chat:
        asked |= {"logprobs": True, "top_logprobs": 2, "messages": [{"role": "user"} | SAID]}
        create = guided.client().chat.completions.create
    else:
        asked["prompt"] = "the cat"
    whole = create(**asked)
    texts, tokens, ends = Counter[int](), Counter[int](), dict[int, Any]()
    streamed = dict.fromkeys(range(6), "")
    for chunk in create(**asked, stream=True, stream_options={"include_usage": True}):
        if not chunk.choices:
            assert chunk.usage == whole.usage
        for choice in chunk.choices:
            streamed[choice.index] += (choice.delta.content if chat else choice.text) or ""
            texts[choice.index] += 1
            if choice.logprobs is not None:
                told = choice.logprobs.content if chat else choice.logprobs.tokens
                tokens[choice.index] += len(told)
            if choice.finish_reason:
                ends[choice.index] = choice
    for choice in whole.choices:
        place = choice.index
        assert streamed[place] == (choice.message.content if chat else choice.text)
        told = choice.logprobs.content if chat else choice.logprobs.tokens
        assert tokens[place] == len(told)
        assert ends[place].finish_reason == choice.finish_reason
        assert ends[place].model_extra["tiltune"] == choice.model_extra["tiltune"]
    assert max(texts.values()) > 2  # more than an opening and an end


SAID = {"content": [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]}


def test_a_chat_is_written_by_the_template(guided: Serving) -> None:
    answer = guided.client().chat.completions.create(
        model=NAME,
        messages=[{"role": "system", "content": "and"}, {"role": "user", "content": "the cat"}],
        seed=1,
        max_completion_tokens=4,
    )
    text, _ = drawn(guided, "and the cat dog", SamplingLaw(4), 1)
    assert answer.choices[0].message.content == text
    assert answer.usage is not None and answer.usage.prompt_tokens == 4


def test_log_probabilities_are_the_guided_law_s(guided: Serving) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": "the cat", "seed": 5, "max_tokens": 4}
    shaped = {"logprobs": 12, "temperature": 0.5, "top_p": 0.9, "n": 6}
    answer = guided.client().completions.create(**asked, **shaped)
    found = next(each.logprobs for each in answer.choices if each.text)
    contender = guided.served.contender
    ids = torch.tensor([contender.loaded.tokenizer("the cat")["input_ids"]])
    mask = torch.ones_like(ids).bool()
    logits = contender.loaded.policy.forward(ids, mask).logits[:, -1].detach()
    values: Any = contender.values
    learnt = values.limited(4).step(ids, mask)[0].detach()
    joint = (logits.log_softmax(-1) + torch.nn.functional.logsigmoid(learnt)).log_softmax(-1)[0]
    vocabulary = contender.loaded.tokenizer.get_vocab()
    assert found is not None and found.tokens and found.top_logprobs and found.token_logprobs
    for word, log_prob in found.top_logprobs[0].items():
        assert log_prob == pytest.approx(max(float(joint[vocabulary[word]]), -9999), abs=1e-4)
    first = found.tokens[0]
    assert found.token_logprobs[0] == pytest.approx(float(joint[vocabulary[first]]), abs=1e-4)


def test_temperature_0_is_the_likeliest_token(guided: Serving) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": "the cat", "temperature": 0, "logprobs": 1}
    texts = set[str]()
    for seed in range(4):
        answer = guided.client().completions.create(**asked, seed=seed, max_tokens=4)
        texts.add(answer.choices[0].text)
        found: Any = answer.choices[0].logprobs
        for token, top in zip(found.tokens, found.top_logprobs, strict=True):
            assert list(top) == [token]
    assert len(texts) == 1


def test_a_stop_text_ends_a_completion_before_it(guided: Serving) -> None:
    asked: dict[str, Any] = {"model": f"{NAME}:plain", "prompt": "the", "max_tokens": 12}
    texts = {
        seed: guided.client().completions.create(**asked, seed=seed).choices[0].text
        for seed in range(8)
    }
    seed, text = max(texts.items(), key=lambda pair: len(pair[1].split()))
    stop = text.split()[2]
    cut = guided.client().completions.create(**asked, seed=seed, stop=[stop, "nowhere"])
    [choice] = cut.choices
    assert choice.text == text[: text.index(stop)] and choice.finish_reason == "stop"
    stream = guided.client().completions.create(**asked, seed=seed, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == choice.text


def test_health_metrics_and_page(guided: Serving) -> None:
    status, body, _ = posted(guided, "/health", b"")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    _, before, _ = posted(guided, "/metrics", b"")
    guided.client().completions.create(model=NAME, prompt="the", max_tokens=3, n=2)
    _, after, headers = posted(guided, "/metrics", b"")
    assert headers["Content-Type"].startswith("text/plain")
    name = 'tiltune_requests_total{path="/v1/completions",status="200"}'
    assert number(after, name) == number(before, name) + 1
    name = 'tiltune_completions_total{guided="yes",satisfied="yes"}'
    assert number(after, name) == number(before, name) + 2
    assert number(after, "tiltune_rows_running") == 0
    assert number(after, "tiltune_completion_tokens_total") > 0
    for path in ("/", "/page.css", "/page.js"):
        status, body, headers = posted(guided, path, b"")
        assert status == 200 and "default-src 'self'" in headers["Content-Security-Policy"]
        assert "http://" not in body and "https://" not in body


def number(text: str, name: str) -> float:
    found = [line.rsplit(" ", 1) for line in text.splitlines()]
    return next((float(pair[1]) for pair in found if pair[0] == name), 0.0)
