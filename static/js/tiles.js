// A grid of small charts that come as one list of figures.

import { draw } from "./charts.js";

/** Draw `figures` (each with key, title, hint, data, layout) into `grid`; charts that stay are updated. */
export async function drawTiles(grid, figures) {
  for (const figure of figures) {
    let plot = [...grid.querySelectorAll(".plot")].find((p) => p.dataset.key === figure.key);
    if (!plot) {
      const card = document.createElement("section");
      card.className = "card";
      const header = document.createElement("header");
      const title = document.createElement("h2");
      title.textContent = figure.title.length > 60 ? `${figure.title.slice(0, 60)}…` : figure.title;
      title.title = figure.title;
      header.append(title);
      if (figure.hint) {
        const hint = document.createElement("span");
        hint.className = "hint";
        hint.textContent = figure.hint;
        header.append(hint);
      }
      plot = document.createElement("div");
      plot.className = "plot small";
      plot.dataset.key = figure.key;
      plot.setAttribute("data-skeleton", "");
      card.append(header, plot);
      card.setAttribute("aria-label", figure.title);
      grid.append(card);
    }
    await draw(plot, { data: figure.data, layout: figure.layout });
  }
}
