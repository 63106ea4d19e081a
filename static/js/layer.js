// The page of one layer.

import { getJson } from "./api.js";
import { draw, fail, update } from "./charts.js";
import { opened } from "./deltas.js";
import { addExplorer } from "./explore.js";
import { number, percent } from "./format.js";
import { poll } from "./live.js";
import { bind, localTimes } from "./page.js";
import { follow, lookQuery, parameter, setParameter } from "./steps.js";
import { addTables } from "./table.js";
import { drawTile, knownQuery, plotsOf } from "./tiles.js";

const { run, layer } = document.body.dataset;
const base = `/api/v1/runs/${encodeURIComponent(run)}`;
const grid = document.getElementById("multiples");
const shapes = document.getElementById("distributions");
const forms = [...document.querySelectorAll("#forms button")];
const moment = document.getElementById("moment");
const heats = new Map(); // key -> heatmap figure, opened: the single histograms come from it
let version = ""; // of all charts; "" when they may be of several
let lastStep = Number(document.body.dataset.last);
let form = parameter("form") ?? "heatmap";
if (!forms.some((button) => button.dataset.form === form)) form = "heatmap";
let asked = 0;

const question = () => {
  const shape = form === "heatmap" ? "" : `&form=${form}`;
  return `charts=layer&layer=${encodeURIComponent(layer)}${lookQuery()}${shape}`;
};

function take(charts) {
  const plots = plotsOf(shapes);
  for (const [key, chart] of Object.entries(charts)) {
    const plot = plots.get(key);
    if (!plot) drawTile(grid, key, chart);
    else if (chart.data) draw(plot, chart);
    else update(plot, chart);
    if (plot && form === "heatmap") heats.set(key, { data: plot.data, layout: plot.layout });
  }
  arrangeMoment();
}

/** The steps of the slider: those of the histograms. */
const moments = () => [...heats.values()].find((heat) => heat.layout.meta?.steps)?.layout.meta.steps ?? [];

function arrangeMoment() {
  const steps = moments();
  const atEnd = moment.value === moment.max && !parameter("at");
  moment.max = String(Math.max(steps.length - 1, 0));
  moment.closest("label").hidden = steps.length < 2;
  const held = Number(parameter("at"));
  if (atEnd) moment.value = moment.max;
  else if (parameter("at")) moment.value = String(Math.max(steps.findLastIndex((step) => step <= held), 0));
  showMoment();
}

/** Draw each histogram at the slider's step, as shares over the bins. */
function showMoment() {
  const steps = moments();
  const index = Number(moment.value);
  if (!steps.length) return;
  document.getElementById("moment-text").textContent = number(steps[index]);
  for (const element of document.querySelectorAll("[data-moment]")) {
    const heat = heats.get(element.dataset.moment);
    const trace = heat?.data[0];
    if (!trace) continue;
    const bucket = Math.min(index, heat.layout.meta.steps.length - 1);
    const y = Float64Array.from(trace.z, (row) => (Number.isNaN(row[bucket] ?? NaN) ? 0 : 10 ** row[bucket]));
    const x = Float64Array.from(y, (_, k) => (trace.y0 ?? 0) + k);
    const top = y.reduce((a, b) => Math.max(a, b), 0);
    const zero = { type: "scatter", mode: "lines", x, y: new Float64Array(y.length), line: { width: 0 } };
    const line = { type: "scatter", mode: "lines", x, y, fill: "tonexty", fillcolor: "--raw", line: { color: "--deep", width: 1.4 }, name: "share of values" };
    const values = heat.layout.yaxis;
    draw(element, {
      data: [zero, line],
      layout: {
        margin: { l: 52, r: 14, t: 8, b: 24 },
        xaxis: { ...values, type: "linear" },
        yaxis: { tickformat: ".0%", nticks: 3, range: [0, top * 1.1 || 1] },
        meta: { over: "values", summary: `Histogram at step ${number(steps[index])}, the fullest bin holds ${percent(top)} of the values.` },
      },
    });
  }
}

async function showAll() {
  const mine = (asked += 1);
  version = "";
  try {
    const answer = await getJson(`${base}/live?${question()}`);
    if (mine === asked) take(answer.charts);
  } catch (error) {
    if (!grid.querySelector(".plot")) fail(grid, `${error.message} The charts come as soon as the server answers.`);
  }
  document.body.dataset.drawn ??= "0";
}

async function ask() {
  const mine = asked;
  const now = question();
  const known = knownQuery([...plotsOf(grid), ...plotsOf(shapes)]);
  const news = await getJson(`${base}/live?version=${version}&${now}${known}`);
  document.getElementById("pill").innerHTML = news.pill; // from our own server, escaped there
  localTimes();
  if (news.changed) {
    lastStep = news.last_step;
    if (mine === asked && now === question()) {
      take(news.charts);
      version = news.more ? "" : news.version;
    }
    document.body.dataset.drawn = String(news.version);
  }
  return (news.more || news.status === "running" || news.status === "lost contact") && news.again_ms;
}

function chooseForm(next) {
  form = next;
  for (const button of forms) button.setAttribute("aria-pressed", String(button.dataset.form === next));
  setParameter("form", next === "heatmap" ? "" : next);
}

for (const button of forms) {
  button.addEventListener("click", () => {
    chooseForm(button.dataset.form);
    showAll();
  });
}
moment.addEventListener("input", () => {
  setParameter("at", String(moments()[Number(moment.value)] ?? ""));
  showMoment();
});
bind({
  "[": () => document.getElementById("before")?.click(),
  "]": () => document.getElementById("after")?.click(),
});
chooseForm(form);
follow(showAll, () => lastStep);
addTables();
addExplorer();
showAll();
poll(ask);
