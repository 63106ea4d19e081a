// A grid of small charts that come by their keys.

import { draw, tokenOf, update } from "./charts.js";

/** The curves' names, each after a line in its colour. */
function keysOf(curves) {
  return curves.map(({ name, color }) => {
    const key = document.createElement("span");
    key.className = "key";
    key.style.setProperty("--key", `var(${color})`);
    key.textContent = name;
    key.title = name;
    return key;
  });
}

/** The plots of `grid` by key. */
export function plotsOf(grid) {
  return new Map([...grid.querySelectorAll(".plot[data-key]")].map((plot) => [plot.dataset.key, plot]));
}

/** What the page knows of the charts in `plots`, as parameters of the next question. */
export function knownQuery(plots) {
  return [...plots]
    .filter(([, plot]) => tokenOf(plot))
    .map(([key, plot]) => `&known=${encodeURIComponent(`${key}~${tokenOf(plot)}`)}`)
    .join("");
}

function tool(name, sign, words) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tool";
  button.dataset[name] = "";
  button.title = words.slice(0, 120);
  button.setAttribute("aria-label", button.title);
  button.textContent = sign;
  return button;
}

function card(chart, size) {
  const made = document.createElement("section");
  made.className = "card";
  const header = document.createElement("header");
  const title = document.createElement("h2");
  title.textContent = chart.title.length > 60 ? `${chart.title.slice(0, 60)}…` : chart.title;
  title.title = chart.title;
  const keys = document.createElement("span");
  keys.className = "keys";
  header.append(title, keys);
  if (chart.hint) {
    const hint = document.createElement("span");
    hint.className = "hint";
    hint.textContent = chart.hint;
    header.append(hint);
  }
  header.append(tool("table", "▤", `The numbers of ${chart.title}`), tool("explore", "⤢", `${chart.title}, larger`));
  const plot = document.createElement("div");
  plot.className = `plot ${size}`;
  plot.dataset.key = chart.key;
  plot.dataset.title = chart.title;
  plot.setAttribute("data-skeleton", "");
  made.append(header, plot);
  made.setAttribute("aria-label", chart.title);
  return made;
}

/** Draw or update one chart in `grid`: a whole figure, or what is new of one that is there. */
export function drawTile(grid, key, chart, size = "small") {
  let plot = plotsOf(grid).get(key);
  if (!plot && !chart.data) return;
  if (!plot) {
    grid.append(card({ ...chart, key }, size));
    plot = plotsOf(grid).get(key);
  }
  if (chart.layout) {
    plot.closest(".card").querySelector(".keys").replaceChildren(...keysOf(chart.layout.meta?.keys ?? []));
  }
  if (chart.data) draw(plot, chart);
  else update(plot, chart);
}
