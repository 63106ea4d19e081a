// The numbers behind a chart as a table, for those who read them better than a picture.

import { tableOf } from "./charts.js";

function fill(dialog, title, rows) {
  const table = document.createElement("table");
  const [head, ...body] = rows;
  const line = table.createTHead().insertRow();
  for (const text of head ?? []) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    line.append(cell);
  }
  const under = table.createTBody();
  for (const row of body) {
    const made = under.insertRow();
    row.forEach((text, k) => {
      const cell = k ? made.insertCell() : made.appendChild(document.createElement("th"));
      if (!k) cell.scope = "row";
      cell.textContent = text;
    });
  }
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector(".wrapx").replaceChildren(body.length ? table : document.createTextNode("Nothing recorded yet."));
}

/** Let every button [data-table] open the table of its card's chart; those of the map show the map's. */
export function addTables(map = null) {
  const dialog = document.getElementById("table");
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-table]");
    if (!button) return;
    const plot = button.closest(".card").querySelector(".plot");
    const rows = map && plot === map.element ? map.table() : tableOf(plot);
    fill(dialog, button.closest(".card").querySelector("h2").textContent, rows);
    dialog.showModal();
  });
}
