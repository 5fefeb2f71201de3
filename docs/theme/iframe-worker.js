/* A page opened from the disk may start no worker, which the search is: there its script runs in a
   hidden frame instead. On a server nothing here does anything. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.started = new Promise((started) => {
        this.frame.onload = started;
      });
      const source = new URL(url, location).href.replaceAll('"', "%22");
      this.frame.srcdoc =
        `<base href="${source}"><script>` +
        `self.importScripts = (...names) => names.forEach((name) => document.write(` +
        `'<script src="' + name + '"><\\/script>'));` +
        `self.postMessage = (data) => parent.dispatchEvent(new CustomEvent("iframe-worker", {detail: data}));` +
        `</script><script src="${source}"></script>`;
      window.addEventListener("iframe-worker", (event) => {
        const message = new MessageEvent("message", { data: event.detail });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
      document.body.appendChild(this.frame);
    }
    postMessage(data) {
      this.started.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })),
      );
    }
    terminate() {
      this.frame.remove();
    }
  };
}
