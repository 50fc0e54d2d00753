// The recent past of one number as a small line, with its value beside it.

import { element, milliseconds, say } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 60; // points
const FOOT = 19;

// What was not known is a hole in the line.
export class Past {
  constructor(label, title) {
    this.root = element("div", "past");
    this.root.title = title;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} 20`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.area = this.svg.appendChild(document.createElementNS(SVG, "path"));
    this.area.setAttribute("class", "area");
    this.path = this.svg.appendChild(document.createElementNS(SVG, "path"));
    this.path.setAttribute("class", "line");
    this.value = element("span", "value", "?");
    this.root.append(element("span", "label", label), this.svg, this.value);
  }

  draw(points, now_s) {
    say(this.value, milliseconds(now_s));
    const { line, area } = trace(points);
    if (this.path.getAttribute("d") === line) return;
    this.path.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

// From zero, so that the height of a line says something; 60 points fill the width, the latest on the right.
export function trace(points) {
  const most = Math.max(...points.filter((value) => value !== null), 1e-6);
  const first = WIDTH - points.length + 1;
  let line = "";
  let area = "";
  let since = null; // where the pen came down
  points.forEach((value, at) => {
    const x = first + at;
    if (value === null) {
      if (since !== null) area += `L${x - 1} ${FOOT}H${since}Z`;
      since = null;
      return;
    }
    const y = (FOOT - ((FOOT - 1) * value) / most).toFixed(1);
    // a point with holes on both sides still shows
    line += since === null ? `M${x} ${y}h0.01` : `L${x} ${y}`;
    area += since === null ? `M${x} ${FOOT}V${y}` : `L${x} ${y}`;
    since ??= x;
  });
  if (since !== null) area += `L${WIDTH} ${FOOT}H${since}Z`;
  return { line, area };
}
