// What is said of a pod beside its numbers: what is wrong with it, how its accelerators are, and all that is known.

import { age, bytes, count, element, percent, price, say } from "./parts.js";

const STATES = { stalled: ["bad", "stalled"], suspect: ["bad", "was stalled"], trial: ["warn", "on trial"] };
const DEVICE_STALE_S = 15; // agents look each two seconds
const CELLS = 16; // of a pod that has more accelerators, the first

// [kind, text] of everything that is wrong.
export function troubles(pod, clock) {
  const found = [];
  if (pod.state in STATES) {
    const [kind, text] = STATES[pod.state];
    found.push([kind, pod.silent_at_s === null ? text : `${text} ${clock.since(pod.silent_at_s)}`]);
  }
  if (!pod.ready) found.push(["warn", "unready"]);
  if (pod.terminating) found.push(["warn", "terminating"]);
  if (pod.stale_at_s !== null) found.push(["warn", `stale ${clock.since(pod.stale_at_s)}`]);
  else if (pod.in_flight === null) found.push(["warn", "not measured"]);
  if (pod.fault) found.push(["bad", `lost device ${pod.fault}`]);
  return found;
}

export function worst(found) {
  return found.some(([kind]) => kind === "bad") ? "bad" : found.length ? "warn" : "";
}

export class Badges {
  constructor() {
    this.root = element("span", "badges");
    this.devices = new Devices();
  }

  draw(pod, found, clock) {
    const shown = this.root.querySelectorAll(":scope > .trouble");
    for (let at = shown.length - 1; at >= found.length; at -= 1) shown[at].remove();
    found.forEach(([kind, text], at) => {
      const badge = shown[at] ?? element("span");
      if (!shown[at]) this.root.insertBefore(badge, this.devices.root.parentNode ? this.devices.root : null);
      badge.className = `badge trouble ${kind}`;
      say(badge, text);
    });
    if (pod.devices.length) {
      this.devices.draw(pod.devices, clock);
      if (!this.devices.root.parentNode) this.root.append(this.devices.root);
    } else this.devices.root.remove();
  }
}

// The accelerators of a pod: a bar for each, as high as it is busy, and their numbers together.
class Devices {
  constructor() {
    this.root = element("span", "badge devices");
    this.cells = this.root.appendChild(element("span", "cells"));
    this.cells.setAttribute("aria-hidden", "true");
    this.text = this.root.appendChild(element("span"));
  }

  draw(devices, clock) {
    const wanted = devices.slice(0, CELLS);
    while (this.cells.children.length > wanted.length) this.cells.lastChild.remove();
    wanted.forEach((device, at) => {
      const cell = this.cells.children[at] ?? this.cells.appendChild(element("i"));
      const kind = device.fault ? "lost" : device.utilization === null ? "unknown" : "";
      if (cell.className !== kind) cell.className = kind;
      const busy = `${Math.round(100 * (device.utilization ?? 0))}%`;
      if (cell.style.getPropertyValue("--busy") !== busy) cell.style.setProperty("--busy", busy);
    });
    const told = devices.map((device) => deviceText(device, clock)).join("\n");
    if (this.root.title !== told) this.root.title = told;
    say(this.text, summary(devices, clock));
  }
}

function summary(devices, clock) {
  const kinds = new Set(devices.map((device) => device.kind || "device"));
  const kind = kinds.size === 1 ? [...kinds][0] : "devices";
  const name = devices.length === 1 ? kind : `${devices.length} ${kind}`;
  const busy = devices.map((device) => device.utilization).filter((value) => value !== null);
  const stale = oldest(devices, clock);
  if (stale !== null) return `${name} stale ${age(stale)}`;
  if (!busy.length) return `${name} ?`;
  return `${name} ${percent(busy.reduce((sum, value) => sum + value, 0) / busy.length)}`;
}

// The age of what was last told of them, where that is too long ago; null where it is not, or nobody told.
function oldest(devices, clock) {
  const ages = devices.filter((device) => device.at_s !== null).map((device) => clock.now() - device.at_s);
  const most = Math.max(0, ...ages);
  return most > DEVICE_STALE_S ? most : null;
}

function deviceText(device, clock) {
  const parts = [device.utilization === null ? "busy ?" : `${percent(device.utilization)} busy`];
  if (device.memory_total_bytes) {
    parts.push(`${device.memory_used_bytes === null ? "?" : bytes(device.memory_used_bytes)} of ${bytes(device.memory_total_bytes)}`);
  } else if (device.memory_used_bytes !== null) parts.push(`${bytes(device.memory_used_bytes)} in use`);
  if (device.fault) parts.push(`lost: ${device.fault}`);
  parts.push(device.at_s === null ? "nobody tells how it is" : `${clock.since(device.at_s)} ago`);
  return `${device.id}${device.share ? ` (share ${device.share})` : ""}: ${parts.join(", ")}`;
}

// [name, value] of all that is known of a pod.
export function details(pod, clock, unit) {
  const facts = [
    ["pod", pod.pod],
    ["address", pod.address],
    ["namespace", pod.namespace],
    ["goes by", `${pod.source}, load ${pod.load}`],
    ["price", price(pod.rank, unit) + (pod.against.length ? ` (${pod.against.join(", ")})` : "")],
    ["picked", Object.entries(pod.picks).map(([reason, n]) => `${n} ${reason}`).join(", ") || "never"],
    ["picks the kernel has not shown", count(pod.unshown)],
  ];
  if (pod.kv_cache_usage !== null) facts.push(["KV cache in use", percent(pod.kv_cache_usage)]);
  if (pod.stale_at_s !== null) facts.push(["last measured", `${clock.since(pod.stale_at_s)} ago`]);
  if (pod.weight !== null) facts.push(["weight for unpicked connections", percent(pod.weight)]);
  for (const device of pod.devices) facts.push([device.resource || device.kind, deviceText(device, clock)]);
  if (pod.fault) facts.push(["lost device", pod.fault]);
  return facts;
}
