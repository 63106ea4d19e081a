import assert from "node:assert/strict";
import { test } from "node:test";

import { layerAddress, withView } from "../../static/js/address.js";
import { grownMap, opened, patched } from "../../static/js/deltas.js";
import { between, rangeOf, roundTicks, scaleOf } from "../../static/js/scale.js";

test("points are added from a place on, the rest stays the very same", () => {
  const figure = opened({ data: [{ x: [0, 1, 2], y: [5, 6, 7] }, { x: [0], y: [1] }], layout: { a: 1 }, token: "t1" });
  const news = patched(figure, { token: "t2", traces: [{ at: 2, x: [2, 3], y: [8, null] }, null] });
  assert.deepEqual([...news.data[0].x], [0, 1, 2, 3]);
  assert.deepEqual([...news.data[0].y].slice(0, 3), [5, 6, 8]);
  assert.ok(Number.isNaN(news.data[0].y[3]));
  assert.equal(news.data[1], figure.data[1]);
  assert.equal(news.layout, figure.layout);
  assert.equal(news.token, "t2");
});

const held = { codes: [Int8Array.of(1, 2, 3), Int8Array.of(4, 5, 6)], edges: [0, 10, 20, 25] };
const plain = ({ codes, edges }) => [codes.map((row) => [...row]), edges];

test("the map grows by its last buckets", () => {
  const made = grownMap(held, { first: 2, codes: [[9, 7], [8, -128]], edges: [20, 30, 35] });
  assert.deepEqual(plain(made), [[[1, 2, 9, 7], [4, 5, 8, -128]], [0, 10, 20, 30, 35]]);
});

test("a map of wider buckets takes the place of the old one part by part", () => {
  const part = grownMap(held, { first: 0, part: true, codes: [[2], [5]], edges: [0, 20] });
  assert.deepEqual(plain(part), [[[2, 3], [5, 6]], [0, 20, 25]]);
  const whole = grownMap(part, { first: 0, codes: [[2, 7], [5, 8]], edges: [0, 20, 40] });
  assert.deepEqual(plain(whole), [[[2, 7], [5, 8]], [0, 20, 40]]);
  const other = grownMap({ codes: [], edges: [] }, { first: 0, part: true, codes: [[2]], edges: [0, 20] });
  assert.deepEqual(plain(other), [[[2]], [0, 20]]);
});

test("ticks are round and few", () => {
  assert.deepEqual(roundTicks(0, 100, 5), [0, 20, 40, 60, 80, 100]);
  assert.deepEqual(roundTicks(0.1, 0.35, 3), [0.1, 0.2, 0.3]);
  assert.deepEqual(roundTicks(3, 3, 5), []);
});

test("a log scale has no place for zero and goes both ways", () => {
  const scale = scaleOf("log", [-2, 0], [100, 0]);
  assert.equal(scale.to(0.1), 50);
  assert.ok(Number.isNaN(scale.to(0)));
  assert.ok(Math.abs(scale.from(50) - 0.1) < 1e-12);
});

test("ranges have a margin and leave out what is not finite", () => {
  const [low, high] = rangeOf([[1, NaN, Infinity, 3]], "linear");
  assert.ok(low < 1 && low > 0.8 && high > 3 && high < 3.3);
});

test("steps and another unit go over into each other", () => {
  assert.equal(between([0, 100], [0, 2], 50), 1);
  assert.equal(between([0, 100], [0, 2], 500), 2);
});

test("addresses of layers hold any name and keep the steps", () => {
  assert.equal(layerAddress("r", "a/b.c"), "/runs/r/layers/a%2Fb.c");
  assert.equal(layerAddress("r", ".."), "/runs/r/layers/?name=..");
  assert.equal(withView("/runs/r/layers/?name=x", "?s=1-2&m=std"), "/runs/r/layers/?name=x&s=1-2");
});
