import assert from "node:assert/strict";
import { test } from "node:test";

import { bucketOf, moment, number, percent, unpack } from "../../static/js/format.js";

test("numbers have three significant digits and grouped thousands", () => {
  assert.equal(number(0.12345), "0.123");
  assert.equal(number(1.2e-5), "1.2e-5");
  assert.equal(number(1e-6), "1e-6");
  assert.equal(number(1234567), "1,234,567");
  assert.equal(number(85.34), "85.3");
  assert.equal(number(0), "0");
  assert.equal(number(null), "–");
  assert.equal(number(-Infinity), "−Inf");
});

test("shares are per cent", () => {
  assert.equal(percent(0.12345), "12.3 %");
  assert.equal(percent(1), "100 %");
  assert.equal(percent(null), "–");
});

test("near moments are relative", () => {
  const now = new Date("2026-01-02T03:04:05Z");
  assert.equal(moment(new Date("2026-01-02T03:04:00Z"), now), "5 s ago");
  assert.equal(moment(new Date("2026-01-02T02:04:00Z"), now), "1 h ago");
  assert.equal(moment(new Date("2026-01-02T03:05:00Z"), now), "0 s ago");
});

test("packed arrays unpack by rows", () => {
  const bytes = new Uint8Array(new Float32Array([1, 2, 3, 4, 5, 6]).buffer);
  const packed = { dtype: "f4", bdata: btoa(String.fromCharCode(...bytes)), shape: "2, 3" };
  assert.deepEqual(unpack(packed).map((row) => [...row]), [[1, 2, 3], [4, 5, 6]]);
  assert.deepEqual(unpack([1, 2]), [1, 2]);
});

test("a step falls into the bucket that begins no later", () => {
  const steps = [0, 10, 20];
  assert.equal(bucketOf(steps, 0), 0);
  assert.equal(bucketOf(steps, 19), 1);
  assert.equal(bucketOf(steps, 500), 2);
  assert.equal(bucketOf(steps, -1), 0);
});
