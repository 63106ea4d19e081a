// One step range for all charts of a page, kept in the address: a copied link shows the same picture.

import { picked } from "./charts.js";
import { number } from "./format.js";
import { bind } from "./page.js";

const found = /^(\d+)-(\d+)$/.exec(new URLSearchParams(location.search).get("s") ?? "");
let range = found && Number(found[2]) > Number(found[1]) ? [Number(found[1]), Number(found[2])] : null;

/** The range as query parameters: "" or "&start=…&stop=…". */
export function rangeQuery() {
  return range ? `&start=${range[0]}&stop=${range[1] + 1}` : "";
}

export function setParameter(name, value) {
  const address = new URL(location);
  if (value) address.searchParams.set(name, value);
  else address.searchParams.delete(name);
  history.replaceState(null, "", address);
}

/** Let all charts follow: `load` is called whenever the range changes. */
export function follow(load) {
  const show = () => {
    document.getElementById("range").hidden = !range;
    if (range) {
      document.getElementById("range-text").textContent = `steps ${number(range[0])}–${number(range[1])}`;
    }
  };
  const set = (next) => {
    if (!next && !range) return;
    range = next && next[1] > next[0] ? next : null;
    setParameter("s", range ? range.join("-") : "");
    show();
    load();
  };
  picked.steps = set;
  document.getElementById("range-reset").addEventListener("click", () => set(null));
  bind({ z: () => set(null) });
  show();
}
