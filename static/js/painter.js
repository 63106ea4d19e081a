// Paints a figure (the part of Plotly's form that app/figures makes) on a canvas. 150 times less script than
// plotly.js, which takes over a second to start on a small machine; that one is loaded to look closer.

import { colour, mixed } from "./colours.js";
import { number } from "./format.js";
import { rangeOf, roundTicks, scaleOf } from "./scale.js";

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&amp;": "&", "&#123;": "{" };

/** A label of app/figures as the characters it stands for. */
export function plain(text) {
  return String(text).replace(/&(lt|gt|amp|#123);/g, (entity) => ENTITIES[entity]);
}

/** Paint `figure` (arrays unpacked) in a box of `width` x `height`; where its axes are. */
export function paint(context, figure, width, height, ticksOfX) {
  const { layout } = figure;
  const narrow = width < 520;
  const margin = { l: 52, r: 14, t: 8, b: 24, ...layout.margin };
  const left = narrow ? Math.min(margin.l, 96) : margin.l;
  const right = width - (narrow ? Math.min(margin.r, 40) : margin.r);
  const box = { left, right, top: margin.t, bottom: height - margin.b };
  const x = scaleOf("linear", rangeX(figure), [box.left, box.right]);
  const y = scaleOf(layout.yaxis.type ?? "linear", rangeY(figure), [box.bottom, box.top]);
  context.clearRect(0, 0, width, height);
  if (layout.xaxis?.visible === false) {
    message(context, layout, width, height);
    return null;
  }
  if (layout.plot_bgcolor?.startsWith("--")) {
    context.fillStyle = colour(layout.plot_bgcolor);
    context.fillRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  }
  axisY(context, layout.yaxis, y, box);
  axisX(context, ticksOfX?.(x, box) ?? stepTicks(layout.xaxis, x, box), x, box);
  context.save();
  context.beginPath();
  context.rect(box.left - 1, box.top - 2, box.right - box.left + 2, box.bottom - box.top + 4);
  context.clip();
  for (const shape of layout.shapes ?? []) if (shape.type === "rect") band(context, shape, y, box);
  figure.data.forEach((trace, index) => {
    if (trace.type === "heatmap") heat(context, trace, x, y, box);
    else curve(context, trace, figure.data[index - 1], x, y);
  });
  for (const shape of layout.shapes ?? []) if (shape.type === "line") mark(context, shape, x, y, box);
  context.restore();
  for (const note of layout.annotations ?? []) label(context, note, x, y, box);
  return { box, x, y };
}

function rangeX(figure) {
  if (figure.layout.xaxis?.range) return figure.layout.xaxis.range;
  const [low, high] = rangeOf(figure.data.map((trace) => trace.x ?? []), "linear");
  return [low, high];
}

function rangeY({ data, layout }) {
  if (layout.yaxis.range) return layout.yaxis.range;
  const columns = data.filter((trace) => trace.y?.length).map((trace) => trace.y);
  return rangeOf(columns, layout.yaxis.type, layout.yaxis.rangemode === "tozero");
}

function stepTicks(axis, x, box) {
  if (axis?.tickvals) return axis.tickvals.map((value, k) => [value, plain(axis.ticktext[k])]);
  const count = Math.min(axis?.nticks ?? 7, Math.max(2, (box.right - box.left) / 90));
  return roundTicks(x.range[0], x.range[1], count).map((value) => [value, number(value)]);
}

function tickText(axis, value) {
  if (axis.tickformat?.endsWith("%")) {
    return `${(value * 100).toFixed(Number(/\d/.exec(axis.tickformat)?.[0] ?? 0))}%`;
  }
  if (axis.ticksuffix === "s") {
    if (!value) return "0 s";
    const [unit, size] = value < 1e-3 ? ["µs", 1e6] : value < 1 ? ["ms", 1e3] : ["s", 1];
    return `${number(value * size)} ${unit}`;
  }
  return number(value);
}

function axisY(context, axis, y, box) {
  const log = axis.type === "log";
  const most = Math.max(2, Math.min(axis.nticks ?? 5, (box.bottom - box.top) / 24));
  let ticks = axis.tickvals?.map((value, k) => [value, plain(axis.ticktext[k])]);
  if (!ticks) {
    const values = log
      ? roundTicks(y.range[0], y.range[1], most).filter(Number.isInteger).map((power) => 10 ** power)
      : roundTicks(y.range[0], y.range[1], most);
    ticks = values.map((value) => [value, tickText(axis, value)]);
  }
  context.font = `11px ${FONT}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.lineWidth = 1;
  let last = Infinity;
  for (const [value, text] of ticks) {
    const at = Math.round(y.to(value)) + 0.5;
    if (!(at >= box.top - 1 && at <= box.bottom + 1)) continue;
    if (axis.showgrid !== false) {
      context.strokeStyle = colour("--grid");
      line(context, box.left, at, box.right, at);
    }
    if (Math.abs(at - last) < 12) continue;
    last = at;
    context.fillStyle = colour("--muted");
    context.fillText(text, box.left - 6, at, box.left - 8);
  }
}

function axisX(context, ticks, x, box) {
  context.strokeStyle = colour("--line");
  context.fillStyle = colour("--muted");
  context.lineWidth = 1;
  context.font = `11px ${FONT}`;
  context.textBaseline = "top";
  line(context, box.left, box.bottom + 0.5, box.right, box.bottom + 0.5);
  for (const [value, text] of ticks) {
    const at = x.to(value);
    if (!(at >= box.left - 0.5 && at <= box.right + 0.5)) continue;
    line(context, at, box.bottom, at, box.bottom + 4);
    const half = context.measureText(text).width / 2;
    context.textAlign = at + half > box.right + 30 ? "right" : "center";
    context.fillText(text, at, box.bottom + 7);
  }
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function band(context, shape, y, box) {
  const [top, bottom] = [y.to(shape.y1), y.to(shape.y0)].map((at, k) => (Number.isFinite(at) ? at : k ? box.bottom : box.top));
  context.fillStyle = colour(shape.fillcolor);
  context.fillRect(box.left, top, box.right - box.left, bottom - top);
}

function mark(context, shape, x, y, box) {
  const paper = shape.yref === "paper";
  context.strokeStyle = colour(shape.line.color);
  context.lineWidth = shape.line.width ?? 1;
  context.setLineDash(shape.line.dash ? [3, 3] : []);
  const wide = shape.xref === "paper";
  const [x0, x1] = wide ? [box.left, box.right] : [x.to(shape.x0), x.to(shape.x1)];
  line(context, x0, paper ? box.top : y.to(shape.y0), x1, paper ? box.bottom : y.to(shape.y1));
  context.setLineDash([]);
}

/** The parts of a curve without gaps, as [from, to) in its points. */
function parts(trace, y, connect) {
  const found = [];
  let from = -1;
  for (let k = 0; k <= trace.x.length; k += 1) {
    const there = k < trace.x.length && Number.isFinite(y.to(trace.y[k] ?? NaN));
    if (there && from < 0) from = k;
    if (!there && from >= 0 && !(connect && k < trace.x.length)) {
      found.push([from, k]);
      from = -1;
    }
  }
  return found;
}

function curve(context, trace, below, x, y) {
  if (trace.mode === "markers") {
    for (let k = 0; k < trace.x.length; k += 1) symbol(context, trace.marker, x.to(trace.x[k]), y.to(trace.y[k]));
    return;
  }
  if (trace.fill === "tonexty" && below) area(context, trace, below, x, y);
  const width = trace.line?.width ?? 1.5;
  if (!width) return;
  context.strokeStyle = colour(trace.line.color);
  context.lineWidth = width;
  context.lineJoin = "round";
  context.setLineDash(trace.line.dash === "dot" ? [2, 3] : trace.line.dash === "dash" ? [6, 4] : []);
  for (const [from, to] of parts(trace, y, trace.connectgaps)) {
    context.beginPath();
    for (let k = from; k < to; k += 1) {
      const height = y.to(trace.y[k] ?? NaN);
      if (!Number.isFinite(height)) continue;
      const at = x.to(trace.x[k]);
      if (trace.line.shape === "hv" && k > from) context.lineTo(at, y.to(trace.y[k - 1]));
      context.lineTo(at, height);
    }
    if (to - from === 1) context.lineTo(x.to(trace.x[from]) + 1, y.to(trace.y[from]));
    context.stroke();
  }
  context.setLineDash([]);
}

/** Between two curves; each bucket's own reach is drawn, too, so that a single one stays visible. */
function area(context, above, below, x, y) {
  context.fillStyle = colour(above.fillcolor);
  for (const [from, to] of parts(above, y, false)) {
    context.beginPath();
    for (let k = from; k < to; k += 1) context.lineTo(x.to(above.x[k]), y.to(above.y[k]));
    for (let k = to - 1; k >= from; k -= 1) {
      const low = y.to(below.y[k]);
      context.lineTo(x.to(below.x[k]), Number.isFinite(low) ? low : y.pixels[0]);
    }
    context.fill();
    context.strokeStyle = colour(above.fillcolor);
    context.lineWidth = 1;
    context.beginPath();
    for (let k = from; k < to; k += 1) {
      const at = x.to(above.x[k]);
      context.moveTo(at, y.to(above.y[k]));
      const low = y.to(below.y[k]);
      context.lineTo(at, Number.isFinite(low) ? low : y.pixels[0]);
    }
    context.stroke();
  }
}

function symbol(context, marker, x, y) {
  const size = (marker.size ?? 6) / 2;
  const height = Number.isFinite(y) ? y : 8;
  context.fillStyle = colour(marker.color);
  context.strokeStyle = colour(marker.line?.color ?? marker.color);
  context.lineWidth = marker.line?.width ?? 1.5;
  context.beginPath();
  if (marker.symbol === "x-thin") {
    context.moveTo(x - size, height - size);
    context.lineTo(x + size, height + size);
    context.moveTo(x + size, height - size);
    context.lineTo(x - size, height + size);
    context.stroke();
    return;
  }
  if (marker.symbol === "triangle-up") {
    context.moveTo(x, height - size);
    context.lineTo(x + size, height + size);
    context.lineTo(x - size, height + size);
  } else if (marker.symbol === "star") {
    for (let k = 0; k < 10; k += 1) {
      const reach = k % 2 ? size * 0.45 : size;
      context.lineTo(x + reach * Math.sin((k * Math.PI) / 5), height - reach * Math.cos((k * Math.PI) / 5));
    }
  } else {
    context.arc(x, height, size, 0, 2 * Math.PI);
  }
  context.fill();
}

function heat(context, trace, x, y, box) {
  const rows = trace.z;
  const edges = trace.x;
  const first = trace.y0 ?? 0;
  const step = trace.dy ?? 1;
  const span = trace.zmax - trace.zmin || 1;
  const shades = Array.from({ length: 65 }, (_, k) => `rgb(${mixed(trace.colorscale, k / 64).join(" ")})`);
  const count = rows[0]?.length ?? 0;
  const places = Array.from({ length: count + 1 }, (_, k) => x.to(edges[k] ?? edges[edges.length - 1]));
  rows.forEach((row, index) => {
    const top = y.to(first + (index + 0.5) * step);
    const bottom = y.to(first + (index - 0.5) * step);
    for (let k = 0; k < count; k += 1) {
      const value = row[k];
      if (value == null || Number.isNaN(value) || places[k + 1] < box.left || places[k] > box.right) continue;
      const share = Math.min(Math.max((value - trace.zmin) / span, 0), 1);
      context.fillStyle = shades[Math.round(share * 64)];
      const low = Math.min(top, bottom);
      context.fillRect(places[k], low, Math.max(places[k + 1] - places[k], 1) + 0.4, Math.abs(bottom - top) + 0.4);
    }
  });
}

/** The least width of an axis whose lines have more than numbers at them: CHARACTER of app/figures/marks.py. */
const LABELLED = 460;

function label(context, note, x, y, box) {
  const paperX = note.xref === "paper";
  const paperY = note.yref === "paper";
  let text = plain(note.text);
  if (paperY && !paperX && box.right - box.left < LABELLED) text = /^(\d+(, \d+)*)?/.exec(text)[0];
  if (!text) return;
  const exponent = y.type === "log" && !paperY ? 10 ** note.y : note.y;
  let at = (paperX ? box.left + note.x * (box.right - box.left) : x.to(note.x)) + (note.xshift ?? 0);
  const height = (paperY ? box.bottom - note.y * (box.bottom - box.top) : y.to(exponent)) - (note.yshift ?? 0);
  if (!paperX && (at < box.left - 1 || at > box.right + 1)) return;
  context.font = `${note.font?.size ?? 12}px ${FONT}`;
  context.fillStyle = colour(note.font?.color ?? "--text");
  context.textBaseline = note.yanchor === "bottom" ? "bottom" : "middle";
  const align = note.xanchor ?? "center";
  if (align === "left" && paperX && at + context.measureText(text).width > box.right + 60) at = box.right + 4;
  context.textAlign = align;
  const limits = Math.min(Math.max(height, box.top + (paperY ? -2 : 6)), box.bottom - 6);
  context.fillText(text, at, paperY ? height - 2 : limits);
}

function message(context, layout, width, height) {
  const text = plain(layout.annotations?.[0]?.text ?? "");
  context.font = `13px ${FONT}`;
  context.fillStyle = colour("--muted");
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, width / 2, height / 2, width - 20);
}
