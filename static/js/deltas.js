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

/**
 * Codes (a row each) and edges of the map after an answer, which stands for its buckets from `first` on. Where it is but
 * a `part`, what was held of later steps stays until it comes.
 */
export function grownMap({ codes, edges }, answer) {
  const news = answer.codes.length === 0 ? [] : unpack(answer.codes);
  const { first, edges: added } = answer;
  const later = answer.part ? edges.findIndex((edge) => edge >= added.at(-1)) : -1;
  const rest = later < 0 || !codes.length ? Infinity : later;
  return {
    codes: news.map((row, index) => joined(first ? codes[index].subarray(0, first) : [], row, codes[index]?.subarray(rest) ?? [])),
    edges: [...edges.slice(0, first), ...added, ...edges.slice(rest + 1)],
  };
}

function joined(...parts) {
  const all = new Int8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
