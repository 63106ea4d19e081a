// The list of findings: opening, keys, "show me there".

import { send } from "./api.js";
import { bind, localTimes } from "./page.js";
import { toast } from "./toast.js";

const list = document.getElementById("findings");
const DAY_MS = 86400e3;
const COLOURS = { critical: "--crit", warning: "--warn", info: "--muted" };

/** Where findings stand: by layer name { n, color }. */
export function flagsOf() {
  const flags = new Map();
  for (const item of list.querySelectorAll(".finding[data-layers]")) {
    for (const name of JSON.parse(item.dataset.layers)) {
      if (!flags.has(name)) flags.set(name, { n: item.dataset.n, color: COLOURS[item.dataset.severity] });
    }
  }
  return flags;
}

/** Put in what is new of the findings and of what was checked; what was open stays open, the focus where it was. */
export function replaceFindings(news) {
  for (const part of list.querySelectorAll("[data-text]")) {
    const html = news[part.dataset.text];
    if (html !== undefined) replacePart(part, html);
  }
}

function replacePart(part, html) {
  const all = () => [...part.querySelectorAll("details")];
  const name = (item) => item.dataset.key ?? item.className;
  const open = new Map(all().map((item) => [name(item), item.open]));
  const focused = document.activeElement?.closest?.("details");
  const key = focused && part.contains(focused) ? name(focused) : null;
  part.innerHTML = html; // from our own server, escaped there
  for (const item of all()) if (open.has(name(item))) item.open = open.get(name(item));
  const again = key && all().find((item) => name(item) === key);
  if (again) again.querySelector("summary").focus();
  localTimes(part);
}

function step(direction) {
  const items = [...list.querySelectorAll(".finding")];
  if (!items.length) return;
  const at = items.findIndex((item) => item.contains(document.activeElement));
  const from = at >= 0 ? at : direction > 0 ? -1 : 0;
  const next = items[(from + direction + items.length) % items.length];
  for (const item of items) item.open = item === next;
  next.querySelector("summary").focus();
  next.scrollIntoView({ block: "nearest" });
}

export function openLinked() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView({ block: "nearest" });
  }
}

/** The steps round what a finding is about, with some before and after. */
export function stepsAround(first, last) {
  const margin = Math.max(10, Math.round((last - first) * 0.25));
  return [Math.max(0, first - margin), last + margin];
}

/** Where the list stands above the charts it starts folded: what to do is in the verdict, and the loss is near. */
function foldWhereNarrow() {
  if (location.hash || !matchMedia("(max-width: 640px)").matches) return;
  for (const item of list.querySelectorAll(".finding[open]")) item.open = false;
}

/** Keys of the list, `refresh()` after something was said of a finding, and `show(layer, steps)` when someone wants to see a finding in the charts. */
export function bindFindings(show, refresh) {
  bind({ j: () => step(1), k: () => step(-1) });
  foldWhereNarrow();
  const go = (item) => {
    const layers = JSON.parse(item.dataset.layers);
    show(layers[0] ?? null, stepsAround(Number(item.dataset.first), Number(item.dataset.last)));
    document.querySelector(".card.map").scrollIntoView({ block: "nearest" });
  };
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-show]");
    if (button) go(button.closest(".finding"));
  });
  list.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    button.disabled = true; // the next news bring the list anew
    const what = button.dataset.do;
    const body = what === "mute" ? { until: new Date(Date.now() + DAY_MS).toISOString() } : null;
    try {
      await send("POST", `/api/v1/findings/${encodeURIComponent(button.closest(".finding").dataset.finding)}/${what}`, body);
      refresh();
    } catch (error) {
      button.disabled = false;
      toast(error.message);
    }
  });
  bind({ s: () => {
    const item = document.activeElement?.closest?.(".finding") ?? list.querySelector(".finding[open]");
    if (item) go(item);
  } });
}
