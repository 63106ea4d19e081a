// The page of one run.

import { getJson } from "./api.js";
import { draw, fail, picked } from "./charts.js";
import { poll } from "./live.js";
import { announce, bind, localTimes } from "./page.js";
import { follow, rangeQuery, setParameter } from "./steps.js";
import { drawTiles } from "./tiles.js";

const { run } = document.body.dataset;
const base = `/api/v1/runs/${encodeURIComponent(run)}`;
const map = document.querySelector("[data-figure=vitals]");
const loss = document.querySelector("[data-figure=loss]");
const findings = document.getElementById("findings");
const tabs = [...document.querySelectorAll("#tabs button")];
let version = Number(document.body.dataset.version);
let statistic = new URLSearchParams(location.search).get("m") ?? "vitals";
if (!tabs.some((tab) => tab.dataset.statistic === statistic)) statistic = "vitals";

async function show(element, address) {
  try {
    await draw(element, await getJson(address));
  } catch (error) {
    fail(element, error.message);
  }
}

async function showMap() {
  const query = `statistic=${statistic}${rangeQuery()}`;
  await show(map, `${base}/figures/vitals?${query}`);
}

async function showMetrics() {
  const answer = await getJson(`${base}/figures/metrics?${rangeQuery().slice(1)}`);
  const system = document.getElementById("system");
  const ofSystem = answer.figures.filter((figure) => figure.group === "system");
  system.hidden = ofSystem.length === 0;
  await drawTiles(
    document.getElementById("metrics"),
    answer.figures.filter((figure) => figure.group !== "system"),
  );
  await drawTiles(system.querySelector(".tiles"), ofSystem);
}

async function showAll() {
  await Promise.allSettled([
    show(loss, `${base}/figures/loss?${rangeQuery().slice(1)}`),
    showMap(),
    showMetrics(),
  ]);
  document.body.dataset.drawn = String(version);
}

function chooseTab(next) {
  statistic = next;
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.statistic === next));
  for (const part of document.querySelectorAll(".legend .scale")) {
    part.hidden = part.classList.contains("zeros") !== (next === "zero_fraction");
  }
  setParameter("m", next === "vitals" ? "" : next);
  showMap();
}

/** Replace the findings; those that were open stay open, and the focus stays where it was. */
function replaceFindings(html) {
  const all = () => [...findings.querySelectorAll("details")];
  const name = (item) => item.dataset.key ?? item.className;
  const open = new Map(all().map((item) => [name(item), item.open]));
  const focused = document.activeElement?.closest?.("details");
  const key = focused && findings.contains(focused) ? name(focused) : null;
  findings.innerHTML = html; // from our own server, escaped there
  for (const item of all()) if (open.has(name(item))) item.open = open.get(name(item));
  const again = key && all().find((item) => name(item) === key);
  if (again) again.querySelector("summary").focus();
}

async function ask() {
  const news = await getJson(`${base}/live?version=${version}`);
  document.getElementById("pill").innerHTML = news.pill;
  if (news.changed) {
    version = news.version;
    const before = document.querySelector("#verdict .state")?.textContent;
    document.getElementById("verdict").innerHTML = news.verdict;
    replaceFindings(news.findings);
    if (before !== news.title) announce(news.title);
    const title = document.title.replace(/^[^:]*/, news.title.replace(".", ""));
    document.title = title;
    await showAll();
  }
  localTimes();
  return news.status === "running" || news.status === "lost contact";
}

function step(direction) {
  const items = [...findings.querySelectorAll(".finding")];
  if (!items.length) return;
  const at = items.findIndex((item) => item.contains(document.activeElement));
  const from = at >= 0 ? at : direction > 0 ? -1 : 0;
  const next = items[(from + direction + items.length) % items.length];
  for (const item of items) item.open = item === next;
  next.querySelector("summary").focus();
  next.scrollIntoView({ block: "nearest" });
}

function openLinked() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView({ block: "nearest" });
  }
}

const rows = Number(map.dataset.rows);
map.style.height = `${Math.min(Math.max(rows * 15 + 40, 220), innerWidth < 640 ? 480 : 640)}px`;
for (const tab of tabs) tab.addEventListener("click", () => chooseTab(tab.dataset.statistic));
bind(Object.fromEntries(tabs.map((tab, i) => [String(i + 1), () => chooseTab(tab.dataset.statistic)])));
bind({ j: () => step(1), k: () => step(-1) });
picked.row = (row) => location.assign(row.link);
follow(showAll);
if (statistic !== "vitals") chooseTab(statistic);
addEventListener("hashchange", openLinked);
openLinked();
showAll();
poll(ask);
