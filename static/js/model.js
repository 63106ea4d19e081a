// The module tree of a run: search, and what is not healthy.

import { bind } from "./page.js";

const search = document.getElementById("model-search");
const sick = document.getElementById("model-sick");
const items = [...document.querySelectorAll(".tree li")];

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const only = sick.getAttribute("aria-pressed") === "true";
  const shown = new Set();
  for (const item of items) {
    const fits = words.every((word) => item.dataset.name.includes(word)) && (!only || "sick" in item.dataset);
    if (!fits) continue;
    for (let at = item; at; at = at.parentElement.closest(".tree li")) shown.add(at);
  }
  for (const item of items) {
    item.hidden = !shown.has(item);
    const details = item.querySelector(":scope > details");
    if (details && words.length && shown.has(item)) details.open = true;
  }
  const none = document.getElementById("model-none");
  none.hidden = shown.size > 0 || !items.length;
  const address = new URL(location);
  for (const [name, value] of [["q", search.value], ["sick", only ? "1" : ""]]) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  history.replaceState(null, "", address);
}

const held = new URLSearchParams(location.search);
search.value = held.get("q") ?? "";
sick.setAttribute("aria-pressed", String(held.has("sick")));
search.addEventListener("input", filter);
sick.addEventListener("click", () => {
  sick.setAttribute("aria-pressed", String(sick.getAttribute("aria-pressed") !== "true"));
  filter();
});
bind({ "/": () => search.focus() });
if (held.has("q") || held.has("sick")) filter();
document.body.dataset.drawn = "1";
