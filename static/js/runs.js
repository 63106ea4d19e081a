// The list of runs: shelves, search, order, groups, selection, and news every second.

import { getJson, send } from "./api.js";
import { element } from "./dom.js";
import { poll } from "./live.js";
import { bind, localTimes } from "./page.js";
import { parse, status } from "./query.js";
import { label, row } from "./runrow.js";
import { toast } from "./toast.js";

const FIRST_ROWS = 60; // drawn at once; further ones as someone scrolls to them
const MORE_ROWS = 200;
const MOST_COMPARED = 20;
const MOST = 10_000; // runs in one answer

const body = document.getElementById("rows");
const search = document.getElementById("search");
const grouping = document.getElementById("group");
const shelf = document.getElementById("shelf");
const bar = document.getElementById("chosen");
const counted = document.getElementById("count");
const FOCUS = ".run, input, button";
const runs = new Map();
const drawn = new Map(); // id -> [what is shown, its row]
const chosen = new Set();
let now = 0; // the server's clock, seconds
let cursor = 0;
let rowsShown = FIRST_ROWS;
let query = parse("");

const address = new URLSearchParams(location.search);
let order = /^-?\w+$/.test(address.get("sort") ?? "") ? address.get("sort") : "-created";
search.value = address.get("q") ?? "";
grouping.value = [...grouping.options].some((option) => option.value === address.get("group")) ? address.get("group") : "";

const LEVELS = ["crit", "warn", "wait", "ok"];
const BY = {
  name: (run) => label(run).toLowerCase(),
  verdict: (run) => LEVELS.indexOf(run.level),
  status: (run) => status(run, now),
  loss: (run) => run.loss,
  steps: (run) => run.step,
  rate: (run) => run.rate,
  findings: (run) => run.findings.critical * 1000 + run.findings.warning,
  created: (run) => run.created,
  duration: (run) => run.seen - run.created,
};
const GROUPS = {
  project: (run) => run.project,
  verdict: (run) => run.state,
  status: (run) => status(run, now),
  tag: (run) => run.tags[0] ?? "no tag",
};

function ordered(list) {
  const down = order.startsWith("-");
  const key = BY[order.replace("-", "")] ?? BY.created;
  const group = GROUPS[grouping.value];
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  // a run without the value comes last in either order
  const missing = (value) => value === null || value === undefined;
  const keyed = list.map((run) => ({ run, value: key(run), group: group ? group(run) : "" }));
  keyed.sort(
    (a, b) =>
      compare(a.group, b.group) ||
      missing(a.value) - missing(b.value) ||
      compare(a.value, b.value) * (down ? -1 : 1) ||
      b.run.created - a.run.created,
  );
  return keyed;
}

function rowOf(run) {
  const shown = JSON.stringify([run, status(run, now), chosen.has(run.id)]);
  const known = drawn.get(run.id);
  if (known && known[0] === shown && status(run, now) !== "running") return known[1];
  const made = row(run, now, chosen.has(run.id), shelf.value !== "deleted");
  if (known && known[1].isConnected && known[1].contains(document.activeElement)) {
    // the focus stays on the same thing in the new row
    const at = [...known[1].querySelectorAll(FOCUS)].indexOf(document.activeElement);
    queueMicrotask(() => made.querySelectorAll(FOCUS)[at]?.focus({ preventScroll: true }));
  }
  drawn.set(run.id, [shown, made]);
  return made;
}

function show() {
  query = parse(search.value);
  const all = [...runs.values()];
  const found = ordered(all.filter((run) => query.matches(run, now)));
  const wanted = [];
  let group = null;
  for (const item of found.slice(0, rowsShown)) {
    if (grouping.value && item.group !== group) {
      group = item.group;
      const size = found.filter((other) => other.group === group).length;
      const title = element("th", { colspan: 11, scope: "colgroup" }, group || "none", element("span", { class: "hint" }, ` ${size}`));
      wanted.push(element("tr", { class: "group" }, title));
    }
    wanted.push(rowOf(item.run));
  }
  body.replaceChildren(...wanted);
  document.getElementById("more").hidden = found.length <= rowsShown;
  const bare = all.length === 0 && cursor > 0;
  document.getElementById("none").hidden = !bare || shelf.value !== "active";
  document.getElementById("bare").hidden = !bare || shelf.value === "active";
  document.getElementById("bare").textContent = `No ${shelf.value} runs.`;
  document.getElementById("table").hidden = all.length === 0;
  document.getElementById("no-match").hidden = !all.length || found.length > 0;
  const unknown = query.unknown(all, now);
  document.getElementById("unknown").textContent = all.length && unknown.length ? `No run has ${unknown.map((name) => `“${name}”`).join(", ")}.` : "";
  counted.textContent = !all.length ? "" : query.empty ? `${all.length.toLocaleString("en")} run${all.length === 1 ? "" : "s"}` : `${found.length} of ${all.length} runs`;
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const mine = head.dataset.sort === order.replace("-", "");
    if (mine) head.setAttribute("aria-sort", order.startsWith("-") ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  localTimes(body);
  showChosen();
}

function showChosen() {
  for (const id of chosen) if (!runs.has(id)) chosen.delete(id);
  bar.hidden = chosen.size === 0;
  document.getElementById("chosen-count").textContent = `${chosen.size} selected`;
  const compare = document.getElementById("compare");
  const may = chosen.size >= 2 && chosen.size <= MOST_COMPARED && shelf.value !== "deleted";
  compare.toggleAttribute("aria-disabled", !may);
  if (may) compare.href = `/compare?runs=${[...chosen].map(encodeURIComponent).join(",")}`;
  else compare.removeAttribute("href");
  compare.title = may ? "" : `Select 2 to ${MOST_COMPARED} runs`;
  const all = document.getElementById("pick-all");
  all.checked = chosen.size > 0 && chosen.size === runs.size;
  all.indeterminate = chosen.size > 0 && chosen.size < runs.size;
}

function remember() {
  const parts = new URLSearchParams();
  if (search.value) parts.set("q", search.value);
  if (order !== "-created") parts.set("sort", order);
  if (grouping.value) parts.set("group", grouping.value);
  if (shelf.value !== "active") parts.set("shelf", shelf.value);
  history.replaceState(null, "", parts.size ? `?${parts}` : location.pathname);
}

function changed() {
  rowsShown = FIRST_ROWS;
  remember();
  show();
}

async function ask() {
  const asked = shelf.value;
  const since = (when) => getJson(`/api/v1/overview?since=${when}&shelf=${asked}`);
  let whole = !cursor;
  let news = await since(cursor);
  const known = new Set([...runs.keys(), ...news.runs.map((run) => run.id)]).size;
  if (!whole && news.complete && known !== Math.min(news.total, MOST)) {
    whole = true; // one has left this shelf, or came to it as it was
    news = await since(0);
  }
  if (asked !== shelf.value) return true;
  if (whole) runs.clear();
  cursor = news.now;
  now = news.now / 1000;
  for (const run of news.runs) runs.set(run.id, run);
  for (const [id, seen] of Object.entries(news.heard)) if (runs.has(id)) runs.get(id).seen = seen;
  show();
  if (news.complete) document.body.dataset.drawn = "1";
  else setTimeout(ask, 50);
  return true;
}

function step(direction) {
  const links = [...body.querySelectorAll(".run")];
  const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
  const from = at >= 0 ? at : direction > 0 ? -1 : 0;
  if (from + direction >= links.length && !document.getElementById("more").hidden) more();
  const next = [...body.querySelectorAll(".run")];
  next[(from + direction + next.length) % next.length]?.focus();
}

function more() {
  rowsShown += MORE_ROWS;
  show();
}

function pick(id, on) {
  if (on) chosen.add(id);
  else chosen.delete(id);
  show();
}

/** Do `what` with all chosen runs, and offer to undo it with `back`: `[method, path]` each. */
async function act(words, what, back) {
  const [done, failed] = await each(what, [...chosen]);
  chosen.clear();
  show();
  const told = `${words} ${counting(done)}.${failed.length ? ` ${failed.length} failed: ${failed[0]}` : ""}`;
  const undo = async () => {
    const [undone, kept] = await each(back, done);
    toast(`Undone for ${counting(undone)}.${kept.length ? ` ${kept.length} failed: ${kept[0]}` : ""}`);
  };
  toast(told, done.length ? undo : null);
}

/** Send `[method, path]` for each of `ids`, and read the list anew. The ids of which it is done, and why not the others. */
async function each([method, path], ids) {
  const done = [];
  const failed = [];
  for (const id of ids) {
    try {
      await send(method, `/api/v1/runs/${encodeURIComponent(id)}${path}`);
      done.push(id);
    } catch (error) {
      failed.push(error.message);
    }
  }
  cursor = 0;
  await ask();
  return [done, failed];
}

function counting(ids) {
  return `${ids.length} run${ids.length === 1 ? "" : "s"}`;
}

/** Show what lies on the chosen shelf, from its start. */
function turn() {
  cursor = 0;
  rowsShown = FIRST_ROWS;
  drawn.clear();
  chosen.clear();
  for (const item of document.querySelectorAll("[data-shelf]")) item.hidden = !item.dataset.shelf.split(" ").includes(shelf.value);
  return ask();
}

search.addEventListener("input", changed);
shelf.addEventListener("change", () => {
  remember();
  turn();
});
grouping.addEventListener("change", changed);
document.getElementById("table").addEventListener("click", (event) => {
  const head = event.target.closest("th[data-sort] button");
  const tag = event.target.closest("[data-tag]");
  if (head) {
    const name = head.parentElement.dataset.sort;
    const text = name === "name" || name === "status" || name === "verdict";
    order = order === name ? `-${name}` : order === `-${name}` ? name : text ? name : `-${name}`;
    changed();
  }
  if (tag) {
    search.value = `${search.value} tag:"${tag.dataset.tag.replaceAll('"', "")}"`.trim();
    changed();
  }
});
document.getElementById("table").addEventListener("change", (event) => {
  const id = event.target.dataset.pick;
  if (id) pick(id, event.target.checked);
  if (event.target.id === "pick-all") {
    for (const run of runs.values()) {
      if (event.target.checked && query.matches(run, now)) chosen.add(run.id);
      else chosen.delete(run.id);
    }
    show();
  }
});
for (const [name, words, what, back] of [
  ["archive", "Archived", ["POST", "/archive"], ["POST", "/unarchive"]],
  ["unarchive", "Brought back", ["POST", "/unarchive"], ["POST", "/archive"]],
  ["delete", "Deleted", ["DELETE", ""], ["POST", "/restore"]],
  ["restore", "Restored", ["POST", "/restore"], ["DELETE", ""]],
])
  document.getElementById(name).addEventListener("click", () => act(words, what, back));
document.getElementById("unpick").addEventListener("click", () => {
  chosen.clear();
  show();
});
document.getElementById("clear-search").addEventListener("click", () => {
  search.value = "";
  changed();
});
document.getElementById("more-button").addEventListener("click", more);
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), { rootMargin: "400px" }).observe(
  document.getElementById("more"),
);
bind({
  "/": () => search.focus(),
  j: () => step(1),
  k: () => step(-1),
  x: () => {
    const id = document.activeElement.closest?.("tr[data-run]")?.dataset.run;
    if (id) pick(id, !chosen.has(id));
  },
  c: () => document.getElementById("compare").click(),
});
if (location.hash === "#search") search.focus();
turn();
poll(ask);
