// Puts what is new of a figure into what the page has (app/web/deltas.py). Pure.

import { unpack } from "./format.js";

const flat = (value) => (value?.bdata || !Array.isArray(value) ? unpack(value) : value);

/** A figure with its arrays unpacked: curves flat, heatmaps by rows. */
export function opened(figure) {
  return { ...figure, data: figure.data.map(openedTrace) };
}

function openedTrace(trace) {
  const made = { ...trace };
  for (const key of ["x", "y", "z"]) if (made[key]) made[key] = flat(made[key]);
  return made;
}

/** `figure` (opened) after `patch`: a whole figure, or traces that stay, grow or are replaced. */
export function patched(figure, patch) {
  if (patch.data) return opened(patch);
  const data = patch.traces.map((news, index) => {
    if (news === null) return figure.data[index];
    if (news.at === undefined) return openedTrace(news);
    const held = figure.data[index];
    return { ...held, x: grown(held.x, news.at, flat(news.x)), y: grown(held.y, news.at, flat(news.y)) };
  });
  return { ...figure, data, layout: patch.layout ?? figure.layout, token: patch.token };
}

function grown(held, at, more) {
  const all = new Float64Array(at + more.length);
  for (let k = 0; k < at; k += 1) all[k] = held[k] ?? NaN;
  for (let k = 0; k < more.length; k += 1) all[at + k] = more[k] ?? NaN;
  return all;
}

/** The map's codes, a row each, after an answer that begins at bucket `first`. */
export function grownCodes(rows, answer) {
  const news = answer.codes.length === 0 ? [] : unpack(answer.codes);
  if (!answer.first) return news.map((row) => Int8Array.from(row));
  return rows.map((row, index) => {
    const more = news[index];
    const all = new Int8Array(answer.first + more.length);
    all.set(row.subarray(0, answer.first));
    all.set(more, answer.first);
    return all;
  });
}
