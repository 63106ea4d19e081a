// Charts on a page: draws figures, takes news of them, shares one cursor and one brush, shows values and tables.

import { colour } from "./colours.js";
import { opened, patched } from "./deltas.js";
import { bucketOf, number, percent, unpack } from "./format.js";
import { paint, plain } from "./painter.js";

const drawn = new Map(); // element -> { figure (opened), view }
const views = new Map(); // element -> () => { left, right, toPixel, toStep } of its step axis
const waiting = new Set(); // elements to paint in the next frame

/** Called with [first, last] when someone picks steps, with null for all; with a row of the map. */
export const picked = { steps: () => {}, row: () => {} };

/** Ticks of the step axes: (scale, box) => [[step, text], …]; null for plain steps. */
export const axis = { ticks: null };

/** Draw or replace `figure` in `element`. */
export function draw(element, figure) {
  show(element, opened(figure));
}

/** Put news (a whole figure or a patch) into what `element` shows. */
export function update(element, news) {
  const held = drawn.get(element);
  if (held || news.data) show(element, news.data ? opened(news) : patched(held.figure, news));
}

/** The token of what `element` shows, for the next question what is new. */
export const tokenOf = (element) => drawn.get(element)?.figure.token;

function show(element, figure) {
  const first = !drawn.has(element);
  drawn.set(element, { figure, view: null });
  element.data = figure.data;
  element.layout = figure.layout;
  if (first) prepare(element);
  element.querySelector("canvas").setAttribute("aria-label", figure.layout.meta?.summary || "chart");
  if (first) paintOne(element); // into the frame that comes, not the one after
  else later(element);
}

function later(element) {
  if (!waiting.size) requestAnimationFrame(paintAll);
  waiting.add(element);
}

function paintAll() {
  for (const element of waiting) paintOne(element);
  waiting.clear();
}

function paintOne(element) {
  const held = drawn.get(element);
  const { clientWidth: width, clientHeight: height } = element;
  if (!held || !width || !element.isConnected) return;
  const canvas = element.querySelector("canvas");
  const context = fitted(canvas, width, height);
  held.view = paint(context, held.figure, width, height, axis.ticks);
  element.removeAttribute("data-skeleton");
  element.dataset.painted = String(Number(element.dataset.painted ?? 0) + 1);
}

/** The context of `canvas` at the screen's own resolution. */
export function fitted(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// An observer also tells of the size that an element had from the first on: it is painted by then.
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) if (!fits(target)) later(target);
});

function fits(element) {
  const { width, height } = element.querySelector("canvas").style;
  return width === `${element.clientWidth}px` && height === `${element.clientHeight}px`;
}

function prepare(element) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  element.replaceChildren(canvas);
  sizes.observe(element);
  follow(element, () => {
    const view = drawn.get(element)?.view;
    const steps = drawn.get(element)?.figure.layout.meta?.over !== "values";
    return view && steps ? { ...view.box, toPixel: view.x.to, toStep: view.x.from } : null;
  });
  element.addEventListener("pointermove", (event) => hover(element, event));
  element.addEventListener("pointerleave", () => (tip().hidden = true));
}

/** Let a chart take part in the shared cursor and brush; `view` says where its step axis is, or null. */
export function follow(element, view) {
  views.set(element, view);
  const cursor = document.createElement("div");
  const brush = document.createElement("div");
  cursor.className = "cursor";
  brush.className = "brush";
  cursor.hidden = brush.hidden = true;
  element.append(cursor, brush);
  let from = null;
  const at = (event) => event.clientX - element.getBoundingClientRect().left;
  const within = (seen, pixel) => Math.min(Math.max(pixel, seen.left), seen.right);
  element.addEventListener("pointermove", (event) => {
    const seen = view();
    if (!seen) return;
    const pixel = at(event);
    moveCursor(pixel >= seen.left && pixel <= seen.right ? seen.toStep(pixel) : null);
    if (from !== null && Math.abs(pixel - from) > 4) {
      const ends = [from, within(seen, pixel)].sort((a, b) => a - b).map(seen.toStep);
      for (const each of views.keys()) placeBrush(each, ends);
    }
  });
  element.addEventListener("pointerleave", () => moveCursor(null));
  element.addEventListener("pointerdown", (event) => {
    const seen = view();
    const pixel = at(event);
    if (!seen || event.button || pixel < seen.left || pixel > seen.right) return;
    from = pixel;
    if (event.pointerType === "mouse") element.setPointerCapture(event.pointerId);
  });
  const end = (event) => {
    const seen = view();
    const start = from;
    from = null;
    for (const each of views.keys()) placeBrush(each, null);
    if (start === null || !seen || event.type === "pointercancel") return;
    const ends = [start, within(seen, at(event))].sort((a, b) => a - b);
    if (ends[1] - ends[0] < 5) return;
    element.dataset.dragged = String(event.timeStamp);
    picked.steps([Math.max(0, Math.floor(seen.toStep(ends[0]))), Math.ceil(seen.toStep(ends[1]))]);
  };
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
  element.addEventListener("dblclick", () => picked.steps(null));
}

/** Show the cursor at `step` in every chart; null for none. */
export function moveCursor(step) {
  for (const [element, view] of views) {
    const seen = step === null ? null : view();
    const pixel = seen ? seen.toPixel(step) : NaN;
    const line = element.querySelector(":scope > .cursor");
    line.hidden = !(pixel >= seen?.left - 1 && pixel <= seen?.right + 1);
    if (!line.hidden) line.style.transform = `translateX(${pixel}px)`;
  }
}

function placeBrush(element, ends) {
  const seen = ends && views.get(element)();
  const brush = element.querySelector(":scope > .brush");
  brush.hidden = !seen;
  if (!seen) return;
  const [low, high] = ends.map((step) => Math.min(Math.max(seen.toPixel(step), seen.left), seen.right));
  brush.style.left = `${low}px`;
  brush.style.width = `${high - low}px`;
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

const tip = () => document.getElementById("tip");

/** Show `nodes` in the tip beside the pointer. */
export function showTip(event, nodes) {
  const box = tip();
  box.replaceChildren(...nodes);
  box.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = box;
  const right = event.clientX + 14 + width > innerWidth - 8;
  box.style.left = `${Math.max(8, right ? event.clientX - width - 14 : event.clientX + 14)}px`;
  box.style.top = `${Math.max(8, Math.min(innerHeight - height - 8, event.clientY - height - 12))}px`;
}

function hover(element, event) {
  const { figure, view } = drawn.get(element);
  const box = element.getBoundingClientRect();
  const [px, py] = [event.clientX - box.left, event.clientY - box.top];
  const inside = view && px >= view.box.left && px <= view.box.right && py >= view.box.top && py <= view.box.bottom;
  if (!inside || event.buttons) {
    tip().hidden = true;
    return;
  }
  const heat = figure.data.find((trace) => trace.type === "heatmap");
  const about = figure.layout.meta?.lines ? aboutRatio : aboutBin;
  showTip(event, heat ? about(figure, heat, view, px, py) : aboutStep(figure, view.x.from(px)));
}

export function node(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

const shown = (figure, value) =>
  value == null || Number.isNaN(value) ? "–" : figure.layout.yaxis.tickformat?.endsWith("%") ? percent(value) : number(value);

function aboutStep(figure, at) {
  const table = document.createElement("table");
  const curves = figure.data.filter((trace) => trace.name && trace.mode === "lines" && trace.x.length);
  const over = figure.layout.meta?.over === "values" ? (value) => `value ${number(value)}` : (step) => `step ${number(step)}`;
  const low = figure.data.findIndex((trace) => trace.line?.width === 0 && !trace.fill);
  const place = curves.length ? curves[0].x[bucketOf(curves[0].x, at)] : Math.round(at);
  for (const trace of curves) {
    const bucket = bucketOf(trace.x, at);
    const row = table.insertRow();
    const name = row.insertCell();
    name.textContent = plain(trace.name);
    name.className = "key";
    name.style.setProperty("--key", colour(trace.line.color));
    row.insertCell().textContent = shown(figure, trace.y[bucket]);
  }
  if (low >= 0 && figure.data[low + 1]) {
    const bucket = bucketOf(figure.data[low].x, at);
    const row = table.insertRow();
    row.insertCell().textContent = "lowest to highest";
    row.insertCell().textContent = `${shown(figure, figure.data[low].y[bucket])} … ${shown(figure, figure.data[low + 1].y[bucket])}`;
  }
  const near = (trace) => trace.mode === "markers" && trace.name && Array.from(trace.x).some((x) => Math.abs(x - place) < 1);
  const notes = figure.data.filter(near).map((trace) => node("div", plain(trace.name), "bad"));
  return [node("b", over(place)), table, ...notes];
}

function aboutBin(figure, heat, view, px, py) {
  const meta = figure.layout.meta;
  const bucket = bucketOf(meta.steps, view.x.from(px));
  const row = Math.round((view.y.from(py) - (heat.y0 ?? 0)) / (heat.dy ?? 1));
  const tone = heat.z[row]?.[bucket];
  const share = tone == null || Number.isNaN(tone) ? 0 : 10 ** tone;
  return [
    node("b", `${percent(share)} of the values`),
    node("div", `about ${number(meta.bins[row])} · step ${number(meta.steps[bucket])}`, "hint"),
  ];
}

/** A cell of the comparison of two runs. */
function aboutRatio({ layout: { meta } }, heat, view, px, py) {
  const bucket = bucketOf(meta.steps, view.x.from(px));
  const row = Math.min(Math.max(Math.round(view.y.from(py)), 0), meta.lines.length - 1);
  const size = (meta.unpacked ??= unpack(meta.ratio))[row]?.[bucket];
  const times = size == null || Number.isNaN(size) ? "not recorded in both" : `${number(10 ** Math.abs(size))} times ${size < 0 ? "smaller" : "larger"} in the first`;
  const name = meta.lines[row];
  return [node("b", name.length > 120 ? `${name.slice(0, 80)}…${name.slice(-30)}` : name), node("div", `${times} · step ${number(meta.steps[bucket])}`, "hint")];
}

/** The values of a chart as rows of text: the first is the head. */
export function tableOf(element, most = 400) {
  const { figure } = drawn.get(element) ?? {};
  const curves = (figure?.data ?? []).filter((trace) => trace.name && trace.x?.length);
  if (!curves.length) return [];
  const steps = [...new Set(curves.flatMap((trace) => Array.from(trace.x)))].sort((a, b) => a - b);
  const every = Math.max(1, Math.ceil(steps.length / most));
  const columns = curves.map((trace) => new Map(Array.from(trace.x, (x, k) => [x, trace.y[k]])));
  const head = [figure.layout.meta?.over === "values" ? "value" : "step", ...curves.map((trace) => plain(trace.name))];
  const rows = steps.filter((_, k) => k % every === 0).map((step) => [
    number(step),
    ...columns.map((column) => (column.has(step) ? shown(figure, column.get(step)) : "")),
  ]);
  return [head, ...rows];
}

/** Paint everything again: the theme, the axes' unit or the size changed. */
export function redraw() {
  for (const element of drawn.keys()) {
    if (element.isConnected) later(element);
    else {
      drawn.delete(element);
      views.delete(element);
      sizes.unobserve(element);
    }
  }
}

addEventListener("themechange", redraw);
