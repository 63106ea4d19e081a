// What is on screen, to take along: each chart as PNG, SVG, CSV or JSON.

import { bind } from "./page.js";

const dialog = document.getElementById("export");
const opener = document.getElementById("export-open");
const plots = () => [...document.querySelectorAll("main .plot")].filter((plot) => plot.offsetParent && plot.querySelector("canvas"));
const titleOf = (plot) => plot.dataset.title || plot.closest(".card")?.querySelector("h2")?.textContent || "chart";

function save(name, content, type) {
  const link = document.createElement("a");
  link.href = content instanceof Blob ? URL.createObjectURL(content) : URL.createObjectURL(new Blob([content], { type }));
  link.download = `trainvitals-${name.replace(/[^\w.-]+/g, "-").slice(0, 60)}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Rows as CSV. A cell that a spreadsheet would take for a formula is kept as text. */
export function csv(rows) {
  const cell = (value) => {
    const text = /^[=+\-@\t]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n");
}

/** The curves of a chart as columns over its steps, exact numbers; null where it has none. */
function columns(plot) {
  const curves = (plot.data ?? []).filter((trace) => trace.x?.length && trace.y?.length && trace.mode === "lines");
  if (!curves.length) return null;
  const steps = [...new Set(curves.flatMap((trace) => Array.from(trace.x)))].sort((a, b) => a - b);
  const known = curves.map((trace) => new Map(Array.from(trace.x, (x, k) => [x, trace.y[k]])));
  const names = curves.map((trace, k) => trace.name ?? (trace.line?.width === 0 ? (trace.fill ? "highest" : "lowest") : `curve ${k + 1}`));
  return [["step", ...names], ...steps.map((step) => [step, ...known.map((column) => column.get(step) ?? "")])];
}

function png(plot) {
  const from = plot.querySelector("canvas");
  const to = document.createElement("canvas");
  [to.width, to.height] = [from.width, from.height];
  const context = to.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
  context.fillRect(0, 0, to.width, to.height);
  context.drawImage(from, 0, 0);
  to.toBlob((blob) => save(`${titleOf(plot)}.png`, blob));
}

function svgAddress(plot) {
  const { run, layer } = document.body.dataset;
  const key = plot.dataset.key ?? (plot.closest(".map") ? "vitals" : plot.dataset.figure);
  if (!run || layer !== undefined || !key || key.startsWith("histogram/")) return null;
  const held = new URLSearchParams(location.search);
  const parts = new URLSearchParams({ chart: key });
  const steps = /^(\d+)-(\d+)$/.exec(held.get("s") ?? "");
  if (steps) {
    parts.set("start", steps[1]);
    parts.set("stop", String(Number(steps[2]) + 1));
  }
  if (held.get("m") && key === "vitals") parts.set("statistic", held.get("m"));
  return `/api/v1/runs/${encodeURIComponent(run)}/chart.svg?${parts}`;
}

function button(text, title, act) {
  const made = document.createElement("button");
  made.className = "btn small";
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", `${title} as ${text}`);
  made.addEventListener("click", act);
  return made;
}

function open() {
  const list = dialog.querySelector("ul");
  list.replaceChildren(
    ...plots().map((plot) => {
      const title = titleOf(plot);
      const line = document.createElement("li");
      const name = document.createElement("b");
      name.textContent = title.length > 60 ? `${title.slice(0, 60)}…` : title;
      line.append(name, button("PNG", title, () => png(plot)));
      const address = svgAddress(plot);
      if (address) line.append(button("SVG", title, () => location.assign(address)));
      const rows = columns(plot);
      if (rows) {
        line.append(button("CSV", title, () => save(`${title}.csv`, csv(rows), "text/csv")));
        const [head, ...body] = rows;
        const records = body.map((row) => Object.fromEntries(row.map((value, k) => [head[k], value === "" ? null : value])));
        line.append(button("JSON", title, () => save(`${title}.json`, JSON.stringify(records), "application/json")));
      }
      return line;
    }),
  );
  dialog.showModal();
}

if (opener) {
  opener.addEventListener("click", open);
  bind({ e: open });
}
