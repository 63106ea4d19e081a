// What the vitals map says in words: of a cell, and of all layers as a table.

import { node } from "./charts.js";
import { bucketOf, number, percent } from "./format.js";
import { CODES } from "./maprows.js";

const WORDS = {
  [CODES.nonfinite]: "NaN or infinity",
  [CODES.gradient]: "NaN or infinity in gradients",
  [CODES.frozen]: "frozen, no gradient",
  [CODES.missing]: "not recorded",
};

/** What a code says. */
export function wordOf(map, code) {
  if (WORDS[code]) return WORDS[code];
  if (map.shares) return `${code} % at most`;
  if (Math.abs(code) < CODES.edge) return "within its healthy band";
  return code > 0 ? "too large" : "too small, or dead";
}

/** What the tip says of a cell; calls `again` when its values have come. */
export function about(map, { line, bucket }, again) {
  const shown = map.lines[line];
  const rows = shown.node.rows;
  if (rows.length > 1) {
    const sick = rows.filter((row) => map.severities[row] > 0).length;
    const title = `${shown.node.label}: ${number(rows.length)} layers`;
    const state = bucket === null ? "" : ` · step ${number(map.edges[bucket])}: ${wordOf(map, map.codesOf(shown)[bucket])}`;
    return [node("b", printable(title)), node("div", `${sick ? `${sick} not healthy at times` : "all healthy"}${state}`, "hint"), node("div", "click to unfold", "hint")];
  }
  const row = map.rows[rows[0]];
  const name = row.name.length > 120 ? `${row.name.slice(0, 80)}…${row.name.slice(-30)}` : row.name;
  if (bucket === null) return [node("b", name || "(root)"), node("div", row.type, "hint")];
  const code = map.codesOf(shown)[bucket];
  const [from, upTo] = [map.edges[bucket], map.edges[bucket + 1]];
  const steps = upTo > from + 1 ? `steps ${number(from)}–${number(upTo - 1)}` : `step ${number(from)}`;
  const head = [node("b", name || "(root)"), node("div", `${row.type} · ${steps}`, "hint"), node("div", wordOf(map, code), Math.abs(code) >= CODES.edge && code > CODES.frozen ? "bad" : "")];
  const values = map.values.get(row.name);
  if (!values) {
    clearTimeout(map.asking);
    map.asking = setTimeout(() => map.ask(row.name, again), 80);
    return head;
  }
  return [...head, valuesOf(values, from, upTo)];
}

/** The map as rows of text: layers that were not healthy first, with the first and last such step. */
export function tableOf(map) {
  const ill = (code) => code >= CODES.gradient || (code > CODES.frozen && Math.abs(code) >= CODES.edge);
  const order = map.rows.map((_, index) => index).sort((a, b) => map.severities[b] - map.severities[a]);
  const body = order.slice(0, 300).map((index) => {
    const codes = map.codes[index];
    const from = codes.findIndex(ill);
    const upTo = codes.findLastIndex(ill);
    const words = [...new Set(Array.from(codes).filter(ill).map((code) => wordOf(map, code)))].join(", then ");
    const most = codes.reduce((x, y) => Math.max(x, y), 0);
    const state = words || (map.shares ? wordOf(map, most) : "within its healthy band");
    return [map.rows[index].name || "(root)", state, ...[from, upTo].map((k) => (k < 0 ? "" : number(map.edges[k])))];
  });
  return [["layer", "what was seen", "first at step", "last at step"], ...body];
}

function valuesOf(values, from, upTo) {
  const table = document.createElement("table");
  for (const [key, { title, steps, mean, max }] of Object.entries(values.statistics)) {
    if (["dead_positions", "unchanged", "nonfinite", "weight_nonfinite", "grad_nonfinite"].includes(key)) continue;
    const at = bucketOf(steps, upTo - 1);
    if (steps.length === 0 || mean[at] === null || steps[at] + (upTo - from) < from) continue;
    const write = (value) => (key.endsWith("fraction") ? percent(value) : number(value));
    const line = table.insertRow();
    line.insertCell().textContent = title;
    line.insertCell().textContent = Math.abs(max[at] - mean[at]) > 0.02 * Math.abs(mean[at]) ? `${write(mean[at])}, up to ${write(max[at])}` : write(mean[at]);
  }
  return table;
}

/** Names may hold anything: control characters and direction overrides become spaces. */
export const printable = (text) => text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, " ");
