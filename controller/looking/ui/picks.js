// The last picks: where each went, for what price and why, and what the next best endpoints would have cost.

import { element, price, say } from "./parts.js";

const FEW = 6;

export class Picks {
  constructor(list, empty, button) {
    this.list = list;
    this.empty = empty;
    this.button = button;
    this.all = false;
    this.picks = [];
  }

  toggle() {
    this.all = !this.all;
    this.list.classList.toggle("few", !this.all);
    this.button.setAttribute("aria-expanded", String(this.all));
    say(this.button, this.all ? "fewer" : "more");
  }

  // `pods` knows what endpoints are called.
  draw(clock, unit, pods) {
    const { list, picks } = this;
    this.empty.hidden = picks.length > 0;
    list.hidden = picks.length === 0;
    this.button.hidden = picks.length <= FEW;
    const shorten = shortener(pods.names());
    const short = (one) => [shorten(pods.called(one.id, one.pod)), pods.called(one.id, one.pod)];
    while (list.children.length > picks.length) list.lastChild.remove();
    picks.forEach((pick, at) => drawPick(list.children[at] ?? list.appendChild(emptyPick()), pick, clock, unit, short));
  }
}

function emptyPick() {
  const line = element("li");
  line.append(
    element("span", "age"),
    element("b", "to"),
    element("span", "cost"),
    element("span", "reason"),
    element("span", "others"),
  );
  return line;
}

function drawPick(line, pick, clock, unit, short) {
  const [when, to, paid, reason, others] = line.children;
  say(when, clock.since(pick.at_s));
  named(to, short(pick));
  say(paid, cost(pick, unit));
  say(reason, pick.reason);
  const wanted = pick.alternatives;
  if (!wanted.length) {
    others.replaceChildren(element("span", "soft", "nothing else to choose"));
    return;
  }
  if (others.firstChild?.className === "soft") others.replaceChildren();
  while (others.children.length > wanted.length) others.lastChild.remove();
  wanted.forEach((other, at) => {
    const place = others.children[at] ?? others.appendChild(emptyOther());
    named(place.children[0], short(other));
    say(place.children[1], ` ${cost(other, unit)}`);
    place.classList.toggle("against", other.against.length > 0);
  });
}

function emptyOther() {
  const other = element("span", "other");
  other.append(element("span", "name"), element("span", "cost"));
  return other;
}

function named(node, [short, whole]) {
  say(node, short);
  if (node.title !== whole) node.title = whole;
}

function cost(one, unit) {
  return [price(one.rank, unit), ...one.against].join(" ");
}

const LONG = 20; // letters of a name that is shown whole

// Pods of one deployment differ at the end of their names: of long ones the part that all share is left out.
function shortener(pods) {
  const shared = prefix(pods);
  return (name) => {
    if (name.length <= LONG) return name;
    const rest = name.startsWith(shared) ? name.slice(shared.length) : name;
    return `…${rest.length <= LONG ? rest : rest.slice(-LONG)}`;
  };
}

function prefix(names) {
  let shared = null;
  for (const name of names) {
    if (shared === null) shared = name.slice(0, name.lastIndexOf("-") + 1);
    while (!name.startsWith(shared)) shared = shared.slice(0, shared.slice(0, -1).lastIndexOf("-") + 1);
    if (!shared) break;
  }
  return shared ?? "";
}
