// The page of one layer.

import { getJson } from "./api.js";
import { draw, fail } from "./charts.js";
import { poll } from "./live.js";
import { bind, localTimes } from "./page.js";
import { follow, rangeQuery } from "./steps.js";
import { drawTiles } from "./tiles.js";

const { run, layer } = document.body.dataset;
const base = `/api/v1/runs/${encodeURIComponent(run)}`;
const query = `name=${encodeURIComponent(layer)}`;
let version = Number(document.body.dataset.version);

async function showHistogram(element) {
  const kind = element.dataset.histogram;
  try {
    await draw(element, await getJson(`${base}/figures/histogram?${query}&kind=${kind}${rangeQuery()}`));
  } catch (error) {
    fail(element, error.message);
  }
}

async function showMultiples() {
  const grid = document.getElementById("multiples");
  try {
    const answer = await getJson(`${base}/figures/layer?${query}${rangeQuery()}`);
    await drawTiles(grid, answer.figures);
  } catch (error) {
    if (!grid.querySelector(".plot")) fail(grid, error.message);
  }
}

async function showAll() {
  const histograms = [...document.querySelectorAll("[data-histogram]")];
  await Promise.allSettled([showMultiples(), ...histograms.map(showHistogram)]);
  document.body.dataset.drawn = String(version);
}

async function ask() {
  const news = await getJson(`${base}/live?version=${version}`);
  document.getElementById("pill").innerHTML = news.pill; // from our own server, escaped there
  localTimes();
  if (news.changed) {
    version = news.version;
    await showAll();
  }
  return news.status === "running" || news.status === "lost contact";
}

bind({
  "[": () => document.getElementById("before")?.click(),
  "]": () => document.getElementById("after")?.click(),
});
follow(showAll);
showAll();
poll(ask);
