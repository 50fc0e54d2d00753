// The page's one connection: follows the controller's events, and comes back by itself after whatever ended them.

const SILENCE_MS = 5000; // events come twice a second
const RETRY_MS = 1000;

export function follow(url, { full, step, lost }) {
  let source = null;
  let heard = performance.now();

  function open() {
    source?.close();
    source = new EventSource(url);
    source.addEventListener("full", (event) => receive(full, event));
    source.addEventListener("step", (event) => receive(step, event));
    source.addEventListener("error", failed);
  }

  function receive(use, event) {
    heard = performance.now();
    use(JSON.parse(event.data));
  }

  // The browser tries again by itself, but not after an answer that is no stream, such as 503.
  function failed() {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(open, RETRY_MS);
  }

  // A connection can die without a word: then nothing fails, it is only silent.
  setInterval(() => {
    if (performance.now() - heard < SILENCE_MS) return;
    heard = performance.now();
    lost();
    open();
  }, RETRY_MS);

  open();
}
