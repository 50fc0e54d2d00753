// The page: takes events, keeps the figures, and hands the pods to pods.js and the last picks to picks.js.

import { Clock, age, element, say } from "./parts.js";
import { Picks } from "./picks.js";
import { Pods } from "./pods.js";
import { follow } from "./stream.js";

const at = (id) => document.getElementById(id);
const clock = new Clock();
const pods = new Pods(at("nodes"), clock);
const picks = new Picks(at("pick-list"), at("no-picks"), at("more-picks"));
const rates = []; // [time, picks] of the last seconds
const RATE_S = 5;

let summary = null;
let agents = [];
let pointer = 0;
let heardAt = null;

follow("events", {
  full(event) {
    pods.unit = event.summary.price_unit;
    pods.full(event.pods, event.nodes, event.lines);
    restartLines(event.line_step_s);
    rates.length = 0;
    take(event);
  },
  step(event) {
    pods.step(event.pods, event.nodes);
    take(event);
  },
  lost() {
    document.documentElement.dataset.link = "lost";
    drawLink();
  },
});

function take(event) {
  clock.set(event.now_s);
  heardAt = performance.now();
  document.documentElement.dataset.link = "live";
  summary = event.summary;
  agents = event.nodes;
  if (event.picks) picks.picks = event.picks;
  rates.push([event.now_s, summary.picks]);
  while (rates.length > 2 && rates[0][0] < event.now_s - RATE_S) rates.shift();
  drawLink();
  drawFigures();
  drawPicks();
}

function restartLines(step_s) {
  clearInterval(pointer);
  pointer = setInterval(() => {
    if (document.documentElement.dataset.link === "live") pods.point();
  }, step_s * 1e3);
}

function drawLink() {
  const lost = document.documentElement.dataset.link === "lost";
  const silence = heardAt === null ? "yet" : `for ${age((performance.now() - heardAt) / 1e3)}`;
  say(at("link"), lost ? `no word from the controller ${silence}; trying again` : "live");
}

function drawFigures() {
  say(at("pool"), `${summary.namespace}/${summary.pool}`);
  say(at("rule"), `rule ${summary.policy}`);
  document.title = `${summary.pool} - Sonde`;
  const notice = at("notice");
  notice.hidden = summary.known;
  say(notice, `The InferencePool ${summary.namespace}/${summary.pool} is not there: every request gets 503.`);
  const all = [...pods.rows.values()].map((row) => row.pod);
  const measured = all.filter((pod) => pod.in_flight !== null);
  const sum = (name) => (measured.length ? measured.reduce((n, pod) => n + (pod[name] ?? 0), 0) : "?");
  const live = agents.filter((agent) => agent.live).length;
  const stalled = all.filter((pod) => pod.state !== "fine").length;
  figures([
    ["pods ready", `${all.filter((pod) => pod.ready && !pod.terminating).length} of ${all.length}`],
    ["in flight", sum("in_flight")],
    ["waiting", sum("waiting")],
    ["streaming", sum("streaming")],
    ["picks/s", rate()],
    ["stalled", stalled, stalled > 0],
    ["agents live", `${live} of ${agents.length}`, live < agents.length],
    ["unmeasured", all.length - measured.length, all.length > measured.length],
  ]);
  say(at("shown"), pods.shown === all.length ? `${all.length} pods` : `${pods.shown} of ${all.length} pods`);
}

function rate() {
  const [first, last] = [rates[0], rates[rates.length - 1]];
  return last[0] > first[0] ? ((last[1] - first[1]) / (last[0] - first[0])).toFixed(1) : "?";
}

function figures(wanted) {
  const root = at("figures");
  wanted.forEach(([name, value, bad], index) => {
    let figure = root.children[index];
    if (!figure) {
      figure = root.appendChild(element("div"));
      figure.append(element("dt", "", name), element("dd"));
      figure.lastChild.append(element("span"), element("small"));
    }
    figure.className = bad ? "bad" : "";
    const [number, ...of] = String(value).split(/(?= of )/);
    say(figure.lastChild.children[0], number);
    say(figure.lastChild.children[1], of.join(""));
  });
}

function drawPicks() {
  picks.draw(clock, summary.price_unit, pods);
}

// Ages go on between events, and most of all when none come.
setInterval(() => {
  drawLink();
  if (summary) drawPicks();
}, 1000);

// controls and keys

at("find").addEventListener("input", () => view({ find: at("find").value }));
at("sort").addEventListener("change", () => view({ sort: at("sort").value }));
at("troubled").addEventListener("change", () => view({ troubled: at("troubled").checked }));
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("more-picks").addEventListener("click", () => picks.toggle());
at("help-button").addEventListener("click", () => at("help").showModal());
at("nodes").addEventListener("click", (event) => {
  const row = event.target.closest("li.pod");
  if (row && !getSelection().toString()) pods.toggle(row);
});

function view(change) {
  Object.assign(pods.view, change);
  pods.arrange();
  if (summary) drawFigures();
}

const KEYS = {
  "/": () => at("find").focus(),
  "?": () => at("help").showModal(),
  b: () => {
    at("troubled").checked = !at("troubled").checked;
    view({ troubled: at("troubled").checked });
  },
  p: () => picks.toggle(),
  j: () => pods.move(1),
  k: () => pods.move(-1),
  ArrowDown: () => pods.move(1),
  ArrowUp: () => pods.move(-1),
  Enter: () => onRow((row) => pods.toggle(row)),
  " ": () => onRow((row) => pods.toggle(row)),
};

function onRow(action) {
  const row = document.activeElement.closest?.("li.pod");
  if (row) action(row);
  return Boolean(row);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  if (event.key === "Escape" && document.activeElement === at("find")) {
    at("find").value = "";
    view({ find: "" });
    at("find").blur();
    return;
  }
  if (document.activeElement.matches("input, select, button, a")) return;
  const action = KEYS[event.key];
  if (action && action() !== false) event.preventDefault();
});
