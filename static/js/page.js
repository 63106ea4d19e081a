// What every page has: theme, help, keys, copy buttons, local times.

import { absolute, moment } from "./format.js";

const keys = {};
let prefix = "";

/** Add keys to the page: `{ j: () => ..., "g r": () => ... }`. */
export function bind(more) {
  Object.assign(keys, more);
}

function changeTheme() {
  const root = document.documentElement;
  const order = ["light", "dark", "system"];
  const next = order[(order.indexOf(root.dataset.choice) + 1) % order.length];
  try {
    localStorage.setItem("trainvitals-theme", next);
  } catch {
    // private window: the choice lasts for this page
  }
  root.dataset.choice = next;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = next === "system" ? (dark ? "dark" : "light") : next;
  announce(`Theme: ${next}`);
  dispatchEvent(new Event("themechange"));
}

export function announce(text) {
  document.getElementById("announce").textContent = text;
}

/** Show times in the browser's zone, relative where they are near; the absolute time on hover. */
export function localTimes(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const date = new Date(element.dateTime);
    element.textContent = moment(date, new Date());
    element.title = absolute(date);
  }
}

async function copy(button) {
  const source = button.dataset.copyFrom;
  const text = source ? document.getElementById(source).textContent : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select the text and copy it";
  }
}

const help = document.getElementById("help");

bind({
  t: changeTheme,
  "?": () => (help.open ? help.close() : help.showModal()),
  "g r": () => location.assign("/"),
  "g a": () => location.assign("/alerts"),
  "g s": () => location.assign("/settings"),
  "/": () => location.assign("/#search"),
  Escape: () => {
    const up = document.body.dataset.up;
    if (up) location.assign(up);
  },
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const dialog = document.querySelector("dialog[open]"); // keys are its own; Escape closes it
  if (dialog && !(dialog === help && event.key === "?")) return;
  const action = keys[`${prefix}${event.key}`];
  prefix = event.key === "g" && !prefix ? "g " : "";
  if (action) {
    event.preventDefault();
    action();
  }
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy], button[data-copy-from]");
  if (button) copy(button);
});
document.getElementById("theme").addEventListener("click", changeTheme);
document.getElementById("help-open").addEventListener("click", () => help.showModal());
setTimeout(localTimes, 300); // the browser's calendar takes longer to start than a chart to draw
setInterval(localTimes, 10000);
