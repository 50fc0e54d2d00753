// One pod: its badges, what is in flight, the two lines of its past, its price. Parts are made when first needed.

import { Badges, details, troubles, worst } from "./badges.js";
import { element, price, say } from "./parts.js";
import { Past } from "./past.js";

export class PodRow {
  constructor(pod, past) {
    this.pod = pod;
    this.past = past;
    this.dirty = true;
    this.near = false;
    this.opened = false;
    this.root = element("li", "pod");
    this.root.tabIndex = -1;
    this.root.dataset.id = pod.id;
    this.badges = new Badges();
    const who = element("div", "who");
    this.name = element("span", "name");
    who.append(this.name, this.badges.root);
    this.root.append(who);
  }

  // Of a pod that serves at several ports each is a row.
  call(name) {
    say(this.name, name);
    if (this.name.title !== name) this.name.title = name;
  }

  // The part that costs.
  #build() {
    this.bar = element("div", "bar");
    this.waiting = element("i", "waiting");
    this.streaming = element("i", "streaming");
    this.bar.append(this.streaming, this.waiting);
    this.text = element("span", "text");
    const load = element("div", "load");
    load.append(this.bar, this.text);
    this.ttft = new Past("first token", "recent mean time to first token; the line shows the last minute");
    this.ttft.root.classList.add("ttft");
    this.gap = new Past("gap", "recent mean gap between chunks; the line shows the last minute");
    this.gap.root.classList.add("gap");
    this.rank = element("span", "rank");
    this.count = element("span", "count");
    this.root.append(load, this.ttft.root, this.gap.root, labelled("price", this.rank), labelled("picks", this.count));
  }

  draw(scale, clock, unit) {
    if (!this.bar) this.#build();
    this.dirty = false;
    const pod = this.pod;
    const known = pod.in_flight !== null;
    const streaming = pod.streaming ?? (known ? pod.in_flight - (pod.waiting ?? 0) : 0);
    this.bar.classList.toggle("unknown", !known);
    this.waiting.style.width = `${(100 * (known ? pod.waiting ?? 0 : 0)) / scale}%`;
    this.streaming.style.width = `${(100 * streaming) / scale}%`;
    say(this.text, loadText(pod));
    this.ttft.draw(this.past.ttft_s, pod.ttft_s);
    this.gap.draw(this.past.gap_s, pod.gap_s);
    say(this.rank.firstChild, price(pod.rank, unit));
    say(this.count.firstChild, String(total(pod.picks)));
    const found = troubles(pod, clock);
    const kind = ["pod", worst(found)].join(" ").trim();
    if (this.root.className !== kind) this.root.className = kind;
    this.badges.draw(pod, found, clock);
    this.#drawMore(clock, unit);
  }

  #drawMore(clock, unit) {
    if (!this.opened) {
      this.more?.remove();
      this.more = undefined;
      return;
    }
    if (!this.more) {
      this.more = element("dl", "more");
      this.root.append(this.more);
    }
    const facts = details(this.pod, clock, unit);
    while (this.more.children.length > facts.length) this.more.lastChild.remove();
    facts.forEach(([name, value], at) => {
      let fact = this.more.children[at];
      if (!fact) {
        fact = this.more.appendChild(element("div"));
        fact.append(element("dt"), element("dd"));
      }
      say(fact.children[0], name);
      say(fact.children[1], value);
    });
  }

  // Whether time alone changes what is shown.
  get ages() {
    return this.opened || this.pod.stale_at_s !== null || this.pod.silent_at_s !== null;
  }
}

function labelled(label, node) {
  node.append(element("span", "value"), element("span", "label", label));
  return node;
}

function loadText(pod) {
  if (pod.in_flight === null) return "? in flight";
  const parts = [`${pod.in_flight} in flight`];
  if (pod.waiting !== null) parts.push(`${pod.waiting} waiting`);
  if (pod.streaming !== null) parts.push(`${pod.streaming} streaming`);
  return parts.join(" · ");
}

function total(picks) {
  return Object.values(picks).reduce((sum, more) => sum + more, 0);
}
