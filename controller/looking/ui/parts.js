// Small parts of the page. All text goes in as text: nothing that came from outside is ever read as markup.

export function element(kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Writes only what differs, so that what stands still costs no layout and keeps a selection.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function count(value) {
  return value === null || value === undefined ? "?" : String(value);
}

// What a pick goes by is a count of requests or a predicted time, as the rule has it.
export function price(value, unit) {
  if (unit === "s") return milliseconds(value);
  return Number.isInteger(value) || value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function milliseconds(value_s) {
  if (value_s === null || value_s === undefined) return "?";
  const ms = value_s * 1e3;
  if (ms >= 10000) return `${(ms / 1e3).toFixed(0)} s`;
  if (ms >= 1000) return `${(ms / 1e3).toFixed(1)} s`;
  return ms >= 10 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
}

export function percent(share) {
  return `${(100 * share).toFixed(0)} %`;
}

export function bytes(value) {
  if (value < 2 ** 30) return `${(value / 2 ** 20).toFixed(0)} MiB`;
  return `${(value / 2 ** 30).toFixed(value < 10 * 2 ** 30 ? 1 : 0)} GiB`;
}

export function age(value_s) {
  if (value_s < 10) return `${Math.max(0, value_s).toFixed(1)} s`;
  if (value_s < 120) return `${value_s.toFixed(0)} s`;
  return value_s < 7200 ? `${(value_s / 60).toFixed(0)} min` : `${(value_s / 3600).toFixed(0)} h`;
}

// The time of the controller's clock, going on between two events.
export class Clock {
  #now_s = 0;
  #heard = 0;

  set(now_s) {
    this.#now_s = now_s;
    this.#heard = performance.now();
  }

  now() {
    return this.#now_s + (performance.now() - this.#heard) / 1e3;
  }

  since(at_s) {
    return age(this.now() - at_s);
  }
}
