import assert from "node:assert/strict";
import { test } from "node:test";

import { bucketsOf, CODES, pathTo, sampledUpTo, severity, tree, visible, worstOf } from "../../static/js/maprows.js";

const rowsOf = (blocks, each) =>
  Array.from({ length: blocks * each }, (_, k) => ({
    name: `blocks.${Math.floor(k / each)}.layer${k % each}`,
    block: `blocks.${Math.floor(k / each)}`,
  }));
const view = (rows, more = {}) => ({ toggled: new Set(), search: "", worst: false, severities: rows.map(() => 0), ...more });

test("NaN wins over everything, sick over healthy, anything over nothing", () => {
  const rows = [
    Int8Array.of(0, 0, CODES.missing, 30, CODES.frozen),
    Int8Array.of(-90, CODES.nonfinite, 0, CODES.gradient, 0),
  ];
  assert.deepEqual([...worstOf(rows)], [-90, CODES.nonfinite, 0, CODES.gradient, 0]);
});

test("healthy, frozen and missing cells are not severe", () => {
  assert.equal(severity(Int8Array.of(0, 10, CODES.frozen, CODES.missing)), 0);
  assert.ok(severity(Int8Array.of(CODES.nonfinite)) > severity(Int8Array.of(100, 100)));
});

test("a small map shows every layer, a large one its blocks, a huge one ranges of blocks", () => {
  const small = rowsOf(3, 4);
  assert.equal(visible(tree(small), small.length, view(small)).length, 12);
  const large = rowsOf(60, 5);
  assert.deepEqual(visible(tree(large), 300, view(large)).map((line) => line.node.label).slice(0, 2), ["blocks.0", "blocks.1"]);
  const huge = rowsOf(400, 5);
  const shown = visible(tree(huge), 2000, view(huge));
  assert.equal(shown.length, 80);
  assert.equal(shown[0].node.label, "blocks.0 … 4");
  assert.equal(shown.reduce((sum, line) => sum + line.node.rows.length, 0), 2000);
});

test("unfolding a range shows its blocks, unfolding a block its layers", () => {
  const rows = rowsOf(400, 5);
  const nodes = tree(rows);
  const keys = pathTo(nodes, 7);
  assert.equal(keys.length, 2);
  const shown = visible(nodes, 2000, view(rows, { toggled: new Set(keys) }));
  const labels = shown.map((line) => line.node.label);
  assert.ok(labels.includes("blocks.1.layer2"));
  assert.ok(labels.includes("blocks.2"));
  assert.ok(!labels.includes("blocks.0.layer0"));
});

test("a search shows the matching layers alone, whatever is folded", () => {
  const rows = rowsOf(400, 5);
  const shown = visible(tree(rows), 2000, view(rows, { search: "blocks.17. LAYER3" }));
  assert.deepEqual(shown.map((line) => line.node.label), ["blocks.17.layer3"]);
});

test("worst first brings the sickest blocks and layers up", () => {
  const rows = rowsOf(3, 4);
  const severities = rows.map((_, k) => (k === 9 ? 500 : 0));
  const shown = visible(tree(rows), 12, view(rows, { worst: true, severities }));
  assert.equal(shown[0].node.label, "blocks.2.layer1");
});

test("every bucket has a pixel, also where many share one", () => {
  const edges = Array.from({ length: 1001 }, (_, k) => k);
  const [first, last] = bucketsOf(edges, (step) => 50 + step / 10, 50, 100);
  const seen = new Set();
  for (let pixel = 0; pixel < 100; pixel += 1) for (let k = first[pixel]; k <= last[pixel]; k += 1) seen.add(k);
  assert.equal(seen.size, 1000);
});

test("what the last bucket says ends one bucket later, and never after the map", () => {
  assert.equal(sampledUpTo([0, 10, 20, 90]), 30);
  assert.equal(sampledUpTo([0, 10, 20, 24]), 24);
  assert.equal(sampledUpTo([0, 90]), 90);
  assert.equal(sampledUpTo([]), undefined);
});
