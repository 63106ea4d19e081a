// One row of the list of runs.

import { element, icon, shorten, sparkline } from "./dom.js";
import { number } from "./format.js";
import { status } from "./query.js";

const DOTS = { running: "live", "lost contact": "lost", failed: "failed" };

const WORDS = { nan: "NaN", inf: "Inf", "-inf": "−Inf" };

export function label(run) {
  return run.name || run.id;
}

/** Seconds as "12 s", "3 min", "2 h 5 min", "4 d 3 h". */
export function duration(seconds) {
  const s = Math.max(Math.floor(seconds), 0);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The row of `run`; `now` in seconds. `linked`: whether it has a page. */
export function row(run, now, chosen, linked) {
  const is = status(run, now);
  const name = label(run);
  const pick = element("input", { type: "checkbox", "data-pick": run.id, "aria-label": `Select ${shorten(name, 60)}` });
  pick.checked = chosen;
  const count = run.findings.critical + run.findings.warning;
  const tags = run.tags.slice(0, 3).map((tag) =>
    element("button", { class: "tag", type: "button", "data-tag": tag, title: `Only runs with the tag ${shorten(tag, 80)}` }, shorten(tag, 18)),
  );
  if (run.tags.length > 3) tags.push(element("span", { class: "hint" }, `+${run.tags.length - 3}`));
  return element(
    "tr",
    { "data-run": run.id, class: chosen ? "picked" : "" },
    element("td", { class: "pick" }, pick),
    element(
      "td",
      { class: "what" },
      element(
        "div",
        { class: "whatbox" },
        icon(run.level, run.state),
        element(
          "div",
          {},
          element(
            linked ? "a" : "span",
            { class: "run", title: shorten(name, 300), ...(linked ? { href: `/runs/${encodeURIComponent(run.id)}` } : { tabindex: "0" }) },
            element("span", { class: "project" }, `${shorten(run.project, 28)} / `),
            shorten(name, 48),
          ),
          element("span", { class: "sum" }, element("b", { class: run.level }, run.state), ` ${shorten(run.sentence, 150)}`),
        ),
      ),
    ),
    element("td", { "data-label": "status" }, element("span", { class: "pill" }, element("span", { class: `dot ${DOTS[is] ?? ""}` }), is === "running" ? "live" : is)),
    element("td", { class: "num", "data-label": "loss" }, typeof run.loss === "string" ? element("b", { class: "nan" }, WORDS[run.loss]) : number(run.loss)),
    element("td", { class: "curve" }, run.spark && sparkline(run.spark, `loss of ${shorten(name, 60)}`)),
    element("td", { class: "num", "data-label": "steps" }, run.step >= 0 ? number(run.step + 1) : "–"),
    element("td", { class: "num", "data-label": "steps/s" }, number(run.rate)),
    element("td", { class: "num", "data-label": "findings" }, count ? element("b", { class: run.findings.critical ? "crit" : "warn" }, String(count)) : "–"),
    element("td", { class: "tags", "data-label": "tags" }, ...tags),
    element("td", { "data-label": "started" }, element("time", { datetime: new Date(run.created * 1000).toISOString() })),
    element("td", { class: "num", "data-label": "duration" }, duration((is === "running" ? now : run.seen) - run.created)),
  );
}
