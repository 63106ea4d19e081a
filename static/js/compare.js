// The comparison of runs: curves over each other, and the layers of two of them.

import { getJson } from "./api.js";
import { draw, fail } from "./charts.js";
import { element, shorten } from "./dom.js";
import { number } from "./format.js";
import { bind } from "./page.js";
import { follow, lookQuery, parameter, setParameter } from "./steps.js";
import { addTables } from "./table.js";

const runs = document.body.dataset.runs.split(",");
const curves = document.getElementById("curves");
const metric = document.getElementById("metric");
const difference = document.getElementById("difference");
const pair = ["first", "second"].map((id) => document.getElementById(id));
const tabs = [...document.querySelectorAll("#tabs button")];
let statistic = tabs.find((tab) => tab.dataset.statistic === parameter("m"))?.dataset.statistic ?? "update_ratio";
let last = 1;

async function showCurves() {
  try {
    const figure = await getJson(`/api/v1/compare/curves?runs=${runs.join(",")}&name=${encodeURIComponent(metric.value)}${lookQuery()}`);
    last = figure.layout.xaxis.range?.[1] ?? 1;
    draw(curves, figure);
  } catch (error) {
    fail(curves, error.message);
  }
}

async function showLayers() {
  if (!difference) return;
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.statistic === statistic));
  const chosen = pair.map((select) => encodeURIComponent(select.value)).join(",");
  if (pair[0].value === pair[1].value) {
    document.getElementById("parting").textContent = "Choose two different runs to see where their layers part.";
    return;
  }
  try {
    const answer = await getJson(`/api/v1/compare/layers?runs=${chosen}&statistic=${statistic}${lookQuery()}`);
    document.getElementById("parting").textContent = answer.parting;
    draw(difference, answer);
    showMost(answer.most, answer.data.length ? "No layer differs by more than a factor of two." : "There is no layer to compare.");
  } catch (error) {
    document.getElementById("parting").textContent = error.message;
    fail(difference, error.message);
  }
}

function showMost(rows, otherwise) {
  const name = (select) => shorten(select.selectedOptions[0].textContent, 24);
  document.getElementById("head-first").textContent = `${name(pair[0])}, last`;
  document.getElementById("head-second").textContent = `${name(pair[1])}, last`;
  const none = element("tr", {}, element("td", { colspan: 4 }, otherwise));
  document.getElementById("most").replaceChildren(
    ...(rows.length ? rows.map(most) : [none]),
  );
}

function most(row) {
  const label = shorten(row.name || "(root)", 60);
  return element(
    "tr",
    {},
    element("td", {}, element("a", { class: "mono", href: row.link, title: shorten(row.name, 200) }, label)),
    element("td", { class: "num" }, `${number(row.ratio)} times${row.broken ? ", NaN/Inf" : ""}`),
    ...row.values.map((value) => element("td", { class: "num" }, number(value))),
  );
}

function choose(next) {
  statistic = next;
  setParameter("m", next === "update_ratio" ? "" : next);
  showLayers();
}

async function showAll() {
  await Promise.all([showCurves(), showLayers()]);
  document.body.dataset.drawn = "1";
}

metric.addEventListener("change", () => {
  setParameter("x", metric.value);
  showCurves();
});
for (const select of pair) {
  select?.addEventListener("change", () => {
    setParameter("pair", pair.map((one) => one.value).join(","));
    showLayers();
  });
}
const held = (parameter("pair") ?? "").split(",");
if (held.length === 2 && held.every((id) => runs.includes(id))) held.forEach((id, k) => (pair[k].value = id));
for (const tab of tabs) tab.addEventListener("click", () => choose(tab.dataset.statistic));
bind(Object.fromEntries(tabs.map((tab, k) => [String(k + 1), () => choose(tab.dataset.statistic)])));
if (difference) difference.classList.add(Number(difference.dataset.rows) > 30 ? "tall" : "short");
addTables();
follow(showAll, () => last);
showAll();
