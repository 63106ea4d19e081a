// From a run to its comparison with another one: the newest runs, those of the same project first.

import { getJson } from "./api.js";
import { element, shorten } from "./dom.js";

const MOST = 30;
const dialog = document.getElementById("compare-dialog");

document.getElementById("compare-with")?.addEventListener("click", async () => {
  const list = document.getElementById("compare-list");
  dialog.showModal();
  try {
    const mine = document.body.dataset.run;
    const { runs } = await getJson("/api/v1/overview?since=0");
    const project = runs.find((run) => run.id === mine)?.project;
    const others = runs.filter((run) => run.id !== mine);
    others.sort((a, b) => (b.project === project) - (a.project === project));
    const items = others.slice(0, MOST).map((run) => {
      const address = `/compare?runs=${encodeURIComponent(mine)},${encodeURIComponent(run.id)}`;
      const link = element("a", { href: address }, shorten(run.name || run.id, 60));
      return element("li", {}, link, element("span", { class: "hint" }, `${shorten(run.project, 28)} · ${run.state}`));
    });
    list.replaceChildren(...(items.length ? items : [element("li", {}, "There is no other run yet.")]));
    list.querySelector("a")?.focus();
  } catch (error) {
    list.replaceChildren(element("li", { class: "problem" }, error.message));
  }
});
