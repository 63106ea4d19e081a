import assert from "node:assert/strict";
import { test } from "node:test";

import { parse, status } from "../../static/js/query.js";

const NOW = 1000;
const run = (more = {}) => ({
  id: "r1", project: "digits", name: "resnet high lr", tags: ["baseline"], created: 0, seen: NOW, reported: "", step: 99,
  state: "Healthy.", sentence: "11 rules find nothing wrong.", findings: { warning: 1, critical: 2 }, rules: ["nan-loss"],
  layers: ["fc1"], loss: 0.25, rate: 30, metrics: { "val/accuracy": 0.91 }, config: { lr: 0.001, "opt.name": "Adam", deep: true }, ...more,
});
const matches = (text, more) => parse(text).matches(run(more), NOW);

test("words match any of a run's texts, all of them", () => {
  assert.ok(matches(""));
  assert.ok(matches("RESNET digits"));
  assert.ok(matches('"high lr"'));
  assert.ok(!matches('"lr high"'));
  assert.ok(!matches("resnet cifar"));
  assert.ok(matches("-cifar") && !matches("-resnet"));
});

test("fields hold a text", () => {
  assert.ok(matches("tag:base project:digits finding:nan layer:fc verdict:healthy status:live"));
  assert.ok(!matches("tag:old") && matches("-tag:old"));
  assert.ok(matches('status:"lost contact"', { seen: NOW - 60 }));
  assert.ok(matches("status:failed", { reported: "failed" }));
});

test("numbers are compared: fields, metrics and configuration", () => {
  assert.ok(matches("loss<0.5 steps=100 findings>=3 critical=2 rate>29"));
  assert.ok(matches("val/accuracy>=0.9 lr=1e-3 config.lr<=0.001 metric.val/accuracy<1"));
  assert.ok(!matches("loss>0.5") && !matches("lr>0.001"));
  assert.ok(matches("opt.name=adam opt.name:ada lr!=0.1 deep=true"));
  assert.ok(!matches("lr!=0.001") && !matches("momentum!=0.9"));
});

test("a run without the value never matches, whatever is asked", () => {
  for (const text of ["loss<1", "loss>0", "loss=0"]) assert.ok(!matches(text, { loss: null }));
  assert.ok(!matches("loss<1", { loss: "nan" }) && matches("loss=nan", { loss: "nan" }));
});

test("hostile texts are only texts", () => {
  for (const text of ["(((", "[a", "\\", "constructor:x", "__proto__:x", "a:", ":", "=", "<>", '"', "-", "--", "config.", "toString=1"]) {
    assert.equal(typeof matches(text), "boolean", text);
  }
  assert.ok(matches("<img", { name: "<img src=x>" }));
});

test("names that no run knows are told", () => {
  const query = parse("momentum>0.5 lr>0 word");
  assert.deepEqual(query.unknown([run()], NOW), ["momentum"]);
});

test("silence makes a lost contact", () => {
  assert.equal(status(run(), NOW), "running");
  assert.equal(status(run({ seen: NOW - 16 }), NOW), "lost contact");
  assert.equal(status(run({ seen: 0, reported: "finished" }), NOW), "finished");
});
