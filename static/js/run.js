// The page of one run.

import { getJson } from "./api.js";
import { draw, fail, picked, tokenOf, update } from "./charts.js";
import { layerAddress, withView } from "./address.js";
import { addExplorer } from "./explore.js";
import { bindFindings, flagsOf, openLinked, replaceFindings } from "./findings.js";
import { poll } from "./live.js";
import { number } from "./format.js";
import { announce, bind, localTimes } from "./page.js";
import { follow, labelSteps, lookQuery, parameter, setParameter, setRange, stepRange } from "./steps.js";
import { addTables } from "./table.js";
import { drawTile, knownQuery, plotsOf } from "./tiles.js";
import { VitalsMap } from "./vitalsmap.js";

const { run } = document.body.dataset;
const base = `/api/v1/runs/${encodeURIComponent(run)}`;
const loss = document.querySelector("[data-figure=loss]");
const metrics = document.getElementById("metrics");
const system = document.getElementById("system");
const tabs = [...document.querySelectorAll("#tabs button")];
const anyStatistic = document.getElementById("statistic");
const search = document.getElementById("map-search");
const worst = document.getElementById("map-worst");
let version = ""; // of all that the page shows; "" when its parts may be of several
let lastStep = Number(document.body.dataset.last);
let statistic = parameter("m") ?? "vitals";
if (![...anyStatistic.options].some((option) => option.value === statistic)) statistic = "vitals";
let asked = 0;
let texts = {}; // tokens of the texts that the page has

const map = new VitalsMap(document.querySelector("[data-figure=vitals]"), {
  rowAddress: (name) => `${base}/map/row?name=${encodeURIComponent(name)}${lookQuery()}`,
  say: announce,
  changed: () => setParameter("g", [...map.toggled].join(",").slice(0, 1500)),
});
map.worst = parameter("o") === "worst";
map.search = parameter("q") ?? "";
map.toggled = new Set((parameter("g") ?? "").split(",").filter(Boolean));

function takeCharts(charts) {
  for (const [key, chart] of Object.entries(charts)) {
    if (key !== "loss") {
      const grid = chart.group === "system" || plotsOf(system).has(key) ? system.querySelector(".tiles") : metrics;
      system.hidden &&= grid === metrics;
      drawTile(grid, key, chart);
      continue;
    }
    if (chart.data) draw(loss, chart);
    else update(loss, chart);
    map.setMarks(loss.layout.shapes ?? []);
  }
}

async function showMap() {
  const mine = (showMap.turn = (showMap.turn ?? 0) + 1);
  version = "";
  map.setRange(stepRange());
  try {
    const answer = await getJson(`${base}/map?statistic=${statistic}${lookQuery()}`);
    if (mine === showMap.turn) map.take(answer);
  } catch (error) {
    if (!map.token) fail(map.element, `${error.message} The map comes as soon as the server answers.`);
  }
  showReach();
}

async function showCharts() {
  const mine = (asked += 1);
  version = "";
  try {
    const answer = await getJson(`${base}/live?charts=run${lookQuery()}`);
    if (mine === asked) takeCharts(answer.charts);
  } catch (error) {
    fail(loss, `${error.message} The charts come as soon as the server answers.`);
  }
}

async function showAll() {
  await Promise.allSettled([showCharts(), showMap()]);
  document.body.dataset.drawn ??= "0";
}

/** The map in words, and how far it goes: samples come later than the steps they are of. */
function showReach() {
  document.getElementById("map-told").textContent = map.summary ?? "";
  if (!map.rows.length) return;
  const count = `${number(map.rows.length)} layer${map.rows.length === 1 ? "" : "s"}`;
  const end = lastStep >= map.sampled ? `, sampled up to step ${number(map.edges.at(-2))} of ${number(lastStep)}` : "";
  document.getElementById("map-hint").textContent = `${count}${end}; click a row for the layer`;
}

function takeTexts(news) {
  lastStep = news.last_step;
  const before = document.querySelector("#verdict .state")?.textContent;
  texts = news.texts;
  if (news.verdict) document.getElementById("verdict").innerHTML = news.verdict; // from our own server, escaped there
  replaceFindings(news);
  map.setFlags(flagsOf());
  if (before !== news.title) announce(news.title);
  document.title = document.title.replace(/^[^:]*/, news.title.replace(".", ""));
}

async function ask() {
  const look = () => [asked, showMap.turn, lookQuery()].join();
  const mine = look();
  const plots = new Map([...plotsOf(metrics), ...plotsOf(system), ["loss", loss]]);
  const told = Object.entries(texts).map(([name, token]) => `&known=${name}~${token}`).join("");
  const known = `&charts=run${knownQuery(plots)}${told}&map=${map.token ?? ""}&statistic=${statistic}`;
  const news = await getJson(`${base}/live?version=${version}${known}${lookQuery()}`);
  document.getElementById("pill").innerHTML = news.pill;
  if (news.changed) {
    takeTexts(news);
    if (mine === look()) {
      takeCharts(news.charts);
      if (news.map) map.take(news.map);
      version = news.more ? "" : news.version;
    }
    showReach();
    document.body.dataset.drawn = String(news.version);
  }
  localTimes();
  return (news.more || news.status === "running" || news.status === "lost contact") && news.again_ms;
}

function chooseStatistic(next) {
  statistic = next;
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.statistic === next));
  anyStatistic.value = next;
  const shares = anyStatistic.selectedOptions[0].dataset.kind === "share";
  for (const part of document.querySelectorAll(".legend .scale")) {
    part.hidden = part.classList.contains("shares") !== shares;
  }
  setParameter("m", next === "vitals" ? "" : next);
}

function control(id, name, load) {
  const element = document.getElementById(id);
  element.value = parameter(name) ?? element.value;
  element.addEventListener("change", () => {
    setParameter(name, element.value === element.dataset.default ? "" : element.value);
    load(element.value);
  });
  return element;
}

async function showUnit(unit) {
  let known = null;
  if (unit !== "step") {
    const answer = await getJson(`${base}/axis?unit=${unit}`);
    if (answer.steps.length > 1) known = answer;
    else announce(`This run has no ${unit} to show. ${answer.needed}`);
    document.getElementById("axis-note").textContent = known ? "" : answer.needed;
  } else document.getElementById("axis-note").textContent = "";
  labelSteps(unit, known);
  map.later();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => {
    chooseStatistic(tab.dataset.statistic);
    showMap();
  });
}
anyStatistic.addEventListener("change", () => {
  chooseStatistic(anyStatistic.value);
  showMap();
});
search.value = map.search;
search.addEventListener("input", () => {
  setParameter("q", search.value);
  map.setView({ search: search.value });
});
worst.setAttribute("aria-pressed", String(map.worst));
worst.addEventListener("click", () => {
  map.setView({ worst: !map.worst });
  worst.setAttribute("aria-pressed", String(map.worst));
  setParameter("o", map.worst ? "worst" : "");
});
control("smooth", "smooth", showCharts);
control("scale", "y", showCharts);
const unit = control("unit", "x", showUnit);

bind(Object.fromEntries(tabs.map((tab, i) => [String(i + 1), () => tab.click()])));
bind({ "/": () => search.focus(), w: () => worst.click() });
bindFindings((layer, steps) => {
  setRange(steps);
  if (layer !== null) map.reveal(layer);
}, ask);
picked.row = (row) => location.assign(withView(layerAddress(run, row.name), location.search));
chooseStatistic(statistic);
follow(showAll, () => lastStep);
map.setFlags(flagsOf());
addTables(map);
addExplorer();
addEventListener("hashchange", openLinked);
openLinked();
showAll();
if (unit.value !== "step") showUnit(unit.value);
poll(ask);
