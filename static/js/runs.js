// The list of runs: search, keys, and news every second.

import { getText } from "./api.js";
import { poll } from "./live.js";
import { bind, localTimes } from "./page.js";

const search = document.getElementById("search");
const rows = document.getElementById("rows");
let shown = "";

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...rows.querySelectorAll("tbody tr")];
  let count = 0;
  for (const row of all) {
    row.hidden = !words.every((word) => row.dataset.text.includes(word));
    if (!row.hidden) count += 1;
  }
  const none = document.getElementById("no-match");
  if (none) none.hidden = count > 0;
  const one = all.length === 1 ? "run" : "runs";
  document.getElementById("count").textContent = !all.length
    ? ""
    : words.length
      ? `${count} of ${all.length} ${one}`
      : `${all.length} ${one}`;
}

function step(direction) {
  const links = [...rows.querySelectorAll("tr:not([hidden]) a.run")];
  const at = links.indexOf(document.activeElement);
  const from = at >= 0 ? at : direction > 0 ? -1 : 0;
  links[(from + direction + links.length) % links.length]?.focus();
}

async function ask() {
  const html = await getText("/runs");
  if (html !== shown) {
    const focused = document.activeElement?.getAttribute?.("href");
    shown = html;
    rows.innerHTML = html; // from our own server, escaped there
    filter();
    if (focused) [...rows.querySelectorAll("a.run")].find((a) => a.getAttribute("href") === focused)?.focus();
  }
  localTimes(rows);
  return true;
}

search.value = new URLSearchParams(location.search).get("q") ?? "";
search.addEventListener("input", filter);
document.addEventListener("click", (event) => {
  if (event.target.id !== "clear-search") return;
  search.value = "";
  filter();
});
bind({ "/": () => search.focus(), j: () => step(1), k: () => step(-1) });
filter();
poll(ask);
