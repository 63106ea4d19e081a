// The only module that calls Plotly. Loads it at the first chart, puts the theme's colours in, links the charts.

import { bucketOf, number, percent, unpack } from "./format.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };
const drawn = new Map(); // element -> figure with colour names
let loading = null;

/** Called with [first, last] when someone picks steps, with null for all. */
export const picked = { steps: () => {}, row: () => {} };

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.body.dataset.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("The chart library can't be loaded. Reload the page."));
    document.head.append(script);
  });
  return loading;
}

/** `value` with every "--name" replaced by the theme's colour of that name. */
export function coloured(value, colour) {
  if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
  if (Array.isArray(value)) {
    // numbers, but not a stop of a colour scale: [0.5, "--mid"]
    const plain = typeof value[0] === "number" && typeof value.at(-1) !== "string";
    return plain ? value : value.map((item) => coloured(item, colour));
  }
  if (value && typeof value === "object" && !value.bdata) {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, colour)]));
  }
  return value;
}

function themed(figure) {
  const style = getComputedStyle(document.documentElement);
  const known = {};
  const colour = (name) => (known[name] ??= style.getPropertyValue(name).trim());
  const { meta, ...layout } = figure.layout;
  return {
    data: coloured(figure.data, colour),
    layout: narrowed({ ...coloured(layout, colour), autosize: true }),
  };
}

function narrowed(layout) {
  if (innerWidth > 640) return layout;
  const margin = { ...layout.margin, l: Math.min(layout.margin?.l ?? 50, 96) };
  margin.r = Math.min(margin.r ?? 14, 40);
  // of an event's label only the finding's number has room
  const annotations = (layout.annotations ?? []).map((note) =>
    note.yref === "paper" && note.xref !== "paper"
      ? { ...note, text: /^\d*/.exec(note.text)[0] }
      : note,
  );
  return { ...layout, annotations, margin, xaxis: { ...layout.xaxis, nticks: 4 } };
}

/** Draw or update `figure` in `element`. */
export async function draw(element, figure) {
  const Plotly = await plotly();
  const first = !drawn.has(element);
  drawn.set(element, figure);
  const { data, layout } = themed(figure);
  await Plotly.react(element, data, layout, CONFIG);
  element.removeAttribute("data-skeleton");
  const summary = figure.layout.meta?.summary;
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", summary || "chart");
  element.dataset.points = String(Date.now());
  if (first) listen(element);
}

/** Show that a chart can't be drawn, and why; a chart that is there stays. */
export function fail(element, message) {
  if (drawn.has(element)) return;
  element.removeAttribute("data-skeleton");
  const text = document.createElement("p");
  text.className = "problem";
  text.textContent = message;
  element.replaceChildren(text);
}

function listen(element) {
  element.on("plotly_relayout", (event) => {
    const low = event["xaxis.range[0]"];
    const high = event["xaxis.range[1]"];
    if (low !== undefined && high !== undefined) {
      picked.steps([Math.max(0, Math.floor(low)), Math.ceil(high)]);
    }
  });
  element.on("plotly_doubleclick", () => picked.steps(null));
  element.on("plotly_hover", (event) => hover(element, event));
  element.on("plotly_unhover", () => (tip().hidden = true));
  element.on("plotly_click", (event) => {
    const row = drawn.get(element).layout.meta?.rows?.[Math.round(event.points[0].y)];
    if (row) picked.row(row);
  });
}

const tip = () => document.getElementById("tip");

function hover(element, event) {
  const meta = drawn.get(element).layout.meta ?? {};
  const point = event.points[0];
  const box = tip();
  if (meta.rows) box.replaceChildren(...aboutCell(meta, point));
  else if (meta.bins) box.replaceChildren(...aboutBin(meta, point));
  else return;
  box.hidden = false;
  const { clientX: x, clientY: y } = event.event;
  const left = Math.min(innerWidth - box.offsetWidth - 8, x + 14);
  const top = Math.max(8, Math.min(innerHeight - box.offsetHeight - 8, y - box.offsetHeight - 12));
  box.style.left = `${left}px`;
  box.style.top = `${top}px`;
}

function node(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function aboutCell(meta, point) {
  const index = Math.round(point.y);
  const row = meta.rows[index];
  const bucket = bucketOf(meta.steps, Math.floor(point.x));
  const next = meta.steps[bucket + 1];
  const from = meta.steps[bucket];
  meta.unpacked ??= { values: meta.values.map(unpack), which: unpack(meta.which) };
  const table = document.createElement("table");
  meta.statistics.forEach((statistic, k) => {
    const value = meta.unpacked.values[k][index][bucket];
    const line = table.insertRow();
    line.insertCell().textContent = statistic.title;
    const share = statistic.key.endsWith("fraction");
    line.insertCell().textContent = value == null || Number.isNaN(value) ? "–" : share ? percent(value) : number(value);
    if (point.z && meta.unpacked.which[index][bucket] === k) line.className = "bad";
  });
  const steps = next > from + 1 ? `sampled at step ${number(from)}, next at ${number(next)}` : `step ${number(from)}`;
  const bad = meta.nonfinite.some(([r, b]) => r === index && b === bucket);
  const name = row.name.length > 120 ? `${row.name.slice(0, 80)}…${row.name.slice(-30)}` : row.name;
  return [
    node("b", name || "(root)"),
    node("div", `${row.type} · ${steps}${row.frozen ? " · frozen" : ""}`, "hint"),
    ...(bad ? [node("div", "NaN or Inf", "bad")] : []),
    table,
  ];
}

function aboutBin(meta, point) {
  const value = meta.bins[Math.round(point.y) - Math.round(point.data.y0 ?? 0)];
  return [
    node("b", `${percent(10 ** point.z)} of the values`),
    node("div", `about ${number(value)} · step ${number(point.x)}`, "hint"),
  ];
}

/** Draw everything again: the theme or the width class changed. */
export async function redraw() {
  for (const [element, figure] of drawn) if (element.isConnected) await draw(element, figure);
}

addEventListener("themechange", redraw);
