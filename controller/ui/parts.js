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

const SVG = "http://www.w3.org/2000/svg";

// A line of the recent past; what was not known is a hole in it.
export class Past {
  constructor(label, title) {
    this.root = element("div", "past");
    this.root.title = title;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", "0 0 60 20");
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.path = document.createElementNS(SVG, "path");
    this.svg.append(this.path);
    this.value = element("span", "value", "?");
    this.root.append(element("span", "label", label), this.svg, this.value);
  }

  draw(points, now_s) {
    say(this.value, milliseconds(now_s));
    const path = trace(points);
    if (this.path.getAttribute("d") !== path) this.path.setAttribute("d", path);
  }
}

// From zero, so that the height of a line says something; 60 points fill the width, the latest on the right.
export function trace(points) {
  const most = Math.max(...points.filter((value) => value !== null), 1e-6);
  let path = "";
  let pen = false;
  points.forEach((value, at) => {
    if (value === null) {
      pen = false;
      return;
    }
    const x = 60 - points.length + at + 1;
    const y = 19 - (18 * value) / most;
    path += `${pen ? "L" : "M"}${x} ${y.toFixed(1)}`;
    if (!pen) path += "h0.01"; // a point with holes on both sides still shows
    pen = true;
  });
  return path;
}
