// A grid of small charts that come as one list of figures.

import { draw } from "./charts.js";

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
      const keys = document.createElement("span");
      keys.className = "keys";
      header.append(title, keys);
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
    plot.closest(".card").querySelector(".keys").replaceChildren(...keysOf(figure.layout.meta?.keys ?? []));
    await draw(plot, { data: figure.data, layout: figure.layout });
  }
}
