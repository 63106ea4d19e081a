// What of a run is looked at, kept in the address: a copied link shows the same picture.

import { axis, picked, redraw } from "./charts.js";
import { number } from "./format.js";
import { bind } from "./page.js";
import { between, roundTicks } from "./scale.js";

const parameters = () => new URLSearchParams(location.search);
const found = /^(\d+)-(\d+)$/.exec(parameters().get("s") ?? "");
let range = found && Number(found[2]) > Number(found[1]) ? [Number(found[1]), Number(found[2])] : null;
const listeners = [];

/** The steps that are looked at, [first, last], or null for all. */
export const stepRange = () => range;

/** The view as query parameters for the server: "" or "&start=…&stop=…&smooth=…&scale=…". */
export function lookQuery() {
  const parts = range ? [`start=${range[0]}`, `stop=${range[1] + 1}`] : [];
  const held = parameters();
  for (const [name, as] of [["smooth", "smooth"], ["y", "scale"]]) {
    if (held.get(name)) parts.push(`${as}=${encodeURIComponent(held.get(name))}`);
  }
  return parts.map((part) => `&${part}`).join("");
}

export function parameter(name) {
  return parameters().get(name);
}

export function setParameter(name, value) {
  const address = new URL(location);
  if (value) address.searchParams.set(name, value);
  else address.searchParams.delete(name);
  history.replaceState(null, "", address);
}

function show() {
  document.getElementById("range").hidden = !range;
  if (range) {
    document.getElementById("range-text").textContent = `steps ${number(range[0])}–${number(range[1])}`;
  }
}

/** Look at [first, last], or at all steps with null. */
export function setRange(next) {
  if (!next && !range) return;
  range = next && next[1] > next[0] ? next.map(Math.round) : null;
  setParameter("s", range ? range.join("-") : "");
  show();
  for (const load of listeners) load();
}

/** Let the charts follow: `load` is called whenever the range changes. `last()` gives the run's last step. */
export function follow(load, last) {
  listeners.push(load);
  picked.steps = setRange;
  document.getElementById("range-reset").addEventListener("click", () => setRange(null));
  const moved = (share, zoom) => {
    const [from, upTo] = range ?? [0, last()];
    const [middle, half] = [(from + upTo) / 2 + share * (upTo - from), ((upTo - from) / 2) * zoom];
    if (half < 1) return;
    const next = [Math.max(0, Math.floor(middle - half)), Math.min(last(), Math.ceil(middle + half))];
    setRange(next[0] <= 0 && next[1] >= last() ? null : next);
  };
  bind({
    z: () => setRange(null),
    "+": () => moved(0, 0.5),
    "-": () => moved(0, 2),
    "<": () => moved(-0.5, 1),
    ">": () => moved(0.5, 1),
  });
  show();
}

const UNITS = { epoch: "epoch", time: "h", tokens: "tokens" };

/** Label the step axes in another unit: `known` is { steps, values } of the run, null for plain steps. */
export function labelSteps(unit, known) {
  axis.ticks = !known ? null : (x, box) => {
    const [low, high] = x.range.map((step) => between(known.steps, known.values, step));
    const most = Math.max(2, Math.min(6, (box.right - box.left) / 110));
    return roundTicks(low, high, most).map((value) => [between(known.values, known.steps, value), `${number(value)} ${UNITS[unit]}`]);
  };
  redraw();
}
