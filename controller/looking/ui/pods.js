// The pods under their nodes. Each pod has its place in the list from the start, so that find-in-page and the scroll
// bar are right, but is drawn only when it comes near the screen and only if it changed.

import { troubles } from "./badges.js";
import { age, element, say } from "./parts.js";
import { PodRow } from "./row.js";

const LINE_POINTS = 60;

const ORDERS = {
  name: () => 0,
  load: (a, b) => (b.in_flight ?? -1) - (a.in_flight ?? -1),
  ttft: (a, b) => (b.ttft_s ?? -1) - (a.ttft_s ?? -1),
  rank: (a, b) => b.against.length - a.against.length || b.rank - a.rank,
};

export class Pods {
  constructor(root, clock) {
    this.root = root;
    this.clock = clock;
    this.rows = new Map();
    this.nodes = new Map();
    this.view = { find: "", sort: "name", troubled: false };
    this.scale = 4;
    this.unit = "requests"; // of every price
    this.current = null;
    this.several = new Set(); // namespaces and names of pods that serve at several ports
    this.observer = new IntersectionObserver((entries) => this.#moved(entries), { rootMargin: "400px" });
  }

  // Everything anew; a line that we have longer than the controller, which may have just started, is kept.
  full(pods, agents, lines) {
    const before = this.rows;
    this.rows = new Map();
    for (const pod of pods) {
      let row = before.get(pod.id);
      const told = lines[pod.id] ?? { ttft_s: [], gap_s: [] };
      if (row && row.past.ttft_s.length <= told.ttft_s.length) row.past = told;
      if (!row) {
        row = new PodRow(pod, told);
        this.observer.observe(row.root);
      }
      row.pod = pod;
      row.dirty = true;
      this.rows.set(pod.id, row);
      before.delete(pod.id);
    }
    this.several = repeated(pods.map((pod) => `${pod.namespace}/${pod.pod}`));
    for (const row of this.rows.values()) row.call(this.called(row.pod.id, row.pod.pod));
    for (const gone of before.values()) {
      this.observer.unobserve(gone.root);
      gone.root.remove();
    }
    this.#agents(agents);
    this.arrange();
  }

  step(pods, agents) {
    for (const pod of pods) {
      const row = this.rows.get(pod.id);
      row.pod = pod;
      row.dirty = true;
    }
    this.#agents(agents);
    if (this.view.sort !== "name" || this.view.troubled) this.arrange();
    else this.draw();
  }

  point() {
    for (const row of this.rows.values()) {
      push(row.past.ttft_s, row.pod.ttft_s);
      push(row.past.gap_s, row.pod.gap_s);
      row.dirty = true;
    }
    this.draw();
  }

  #agents(agents) {
    const known = new Map(agents.map((agent) => [agent.name, agent]));
    for (const row of this.rows.values()) {
      const name = row.pod.node ?? "";
      if (!known.has(name)) known.set(name, { name, live: false, heard_age_s: null });
    }
    for (const [name, node] of this.nodes) {
      if (known.has(name)) continue;
      node.root.remove();
      this.nodes.delete(name);
    }
    for (const agent of known.values()) this.#agent(agent);
  }

  #agent(agent) {
    let node = this.nodes.get(agent.name);
    if (!node) {
      node = { root: element("section", "node"), list: element("ol"), state: element("span", "badge"), sum: element("span", "soft") };
      const head = element("h3", "", agent.name || "no node named");
      head.append(node.state, node.sum);
      node.root.append(head, node.list);
      this.nodes.set(agent.name, node);
      const after = [...this.nodes.keys()].sort().find((name) => name > agent.name);
      this.root.insertBefore(node.root, after === undefined ? null : this.nodes.get(after).root);
    }
    const [kind, text] = agentText(agent);
    node.state.className = `badge ${kind}`;
    say(node.state, text);
  }

  // Puts rows where sort, find and node want them. Moves only what stands elsewhere, so that focus stays.
  arrange() {
    const order = ORDERS[this.view.sort];
    const rows = [...this.rows.values()].sort((a, b) => order(a.pod, b.pod));
    const next = new Map();
    let shown = 0;
    for (const row of rows) {
      const list = this.nodes.get(row.pod.node ?? "").list;
      const place = next.has(list) ? next.get(list) : list.firstElementChild;
      if (place === row.root) next.set(list, place.nextElementSibling);
      else list.insertBefore(row.root, place);
      if (!next.has(list)) next.set(list, row.root.nextElementSibling);
      row.root.hidden = !this.#wanted(row.pod);
      if (!row.root.hidden) shown += 1;
    }
    this.#arrangeNodes(rows);
    for (const node of this.nodes.values()) {
      const some = [...node.list.children].some((child) => !child.hidden);
      node.root.hidden = !some && node.list.children.length > 0;
    }
    this.shown = shown;
    this.#rove();
    this.draw();
  }

  // By name, or by whose pod comes first; a focused row stays focused.
  #arrangeNodes(rows) {
    const names = this.view.sort === "name" ? [] : rows.map((row) => row.pod.node ?? "");
    const order = [...new Set([...names, ...[...this.nodes.keys()].sort()])].map((name) => this.nodes.get(name).root);
    if (order.every((root, at) => this.root.children[at] === root)) return;
    const focused = this.root.contains(document.activeElement) ? document.activeElement : null;
    this.root.append(...order);
    focused?.focus({ preventScroll: true });
  }

  #wanted(pod) {
    if (this.view.troubled && troubles(pod, this.clock).length === 0) return false;
    const find = this.view.find.toLowerCase();
    return !find || [pod.pod, pod.node ?? "", pod.address, pod.namespace].some((text) => text.toLowerCase().includes(find));
  }

  draw() {
    const most = Math.max(4, ...[...this.rows.values()].map((row) => row.pod.in_flight ?? 0));
    const scale = 2 ** Math.ceil(Math.log2(most));
    const rescaled = scale !== this.scale;
    this.scale = scale;
    const sums = new Map();
    for (const row of this.rows.values()) {
      if (row.near && (row.dirty || rescaled || row.ages)) row.draw(scale, this.clock, this.unit);
      else if (rescaled) row.dirty = true;
      add(sums, row.pod);
    }
    for (const [name, node] of this.nodes) say(node.sum, sumText(sums.get(name)));
  }

  #moved(entries) {
    for (const entry of entries) {
      const row = this.rows.get(entry.target.dataset.id);
      if (!row) continue;
      row.near = entry.isIntersecting;
      if (row.near && row.dirty) row.draw(this.scale, this.clock, this.unit);
    }
  }

  // One row of all can be reached by the Tab key; the arrows lead on from there.
  #rove() {
    const places = this.#places();
    if (places.includes(this.current)) return;
    if (this.current) this.current.tabIndex = -1;
    this.current = places[0] ?? null;
    if (this.current) this.current.tabIndex = 0;
  }

  #places() {
    return [...this.root.querySelectorAll("li.pod:not([hidden])")];
  }

  move(by) {
    const places = this.#places();
    if (!places.length) return;
    const at = document.activeElement === this.current ? places.indexOf(this.current) + by : places.indexOf(this.current);
    const to = places[Math.min(Math.max(at, 0), places.length - 1)];
    this.current.tabIndex = -1;
    this.current = to;
    to.tabIndex = 0;
    to.focus();
    to.scrollIntoView({ block: "nearest" });
  }

  // What an endpoint is called: the pod, and where that is not enough its port.
  called(id, pod) {
    const end = id.lastIndexOf(":");
    return this.several.has(id.slice(0, end)) ? pod + id.slice(end) : pod;
  }

  names() {
    return [...this.rows.values()].map((row) => row.name.textContent);
  }

  toggle(root) {
    const row = this.rows.get(root.dataset.id);
    row.opened = !row.opened;
    row.root.setAttribute("aria-expanded", String(row.opened));
    row.draw(this.scale, this.clock, this.unit);
    row.root.scrollIntoView({ block: "nearest" });
  }
}

function repeated(names) {
  const seen = new Set();
  return new Set(names.filter((name) => seen.has(name) || !seen.add(name)));
}

function push(points, value) {
  points.push(value ?? null);
  if (points.length > LINE_POINTS) points.shift();
}

function agentText(agent) {
  if (agent.live) return ["", "agent live"];
  if (agent.heard_age_s === null) return ["warn", "no agent heard"];
  return ["bad", `agent silent for ${age(agent.heard_age_s)}`];
}

function add(sums, pod) {
  const sum = sums.get(pod.node ?? "") ?? { pods: 0, in_flight: 0, unknown: 0 };
  sum.pods += 1;
  if (pod.in_flight === null) sum.unknown += 1;
  else sum.in_flight += pod.in_flight;
  sums.set(pod.node ?? "", sum);
}

function sumText(sum) {
  if (!sum) return "no pods of this pool";
  const flight = sum.unknown === sum.pods ? "in flight unknown" : `${sum.in_flight} in flight`;
  return `${sum.pods} pod${sum.pods === 1 ? "" : "s"}, ${flight}${sum.unknown && sum.unknown < sum.pods ? `, ${sum.unknown} unknown` : ""}`;
}
