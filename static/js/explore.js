// One chart large, drawn by plotly.js: zoom both axes, pan, keep as a picture. The library is loaded here only.

import { colour } from "./colours.js";

let loading = null;

/** plotly.js writes some `style` attributes, which the pages forbid; the same through the CSSOM is allowed. */
function styleThroughObjects() {
  const { setAttribute } = Element.prototype;
  Element.prototype.setAttribute = function set(name, value) {
    if (name === "style") this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
}

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    // its own rules would need inline styles, which the pages forbid: they stand in charts.css
    const rules = document.createElement("meta");
    rules.id = "plotly.js-style-global";
    rules.className = "no-inline-styles";
    const script = document.createElement("script");
    script.src = document.body.dataset.plotly;
    // its map library brings a style element at its start, which we have no use for and the pages forbid
    const { head } = document;
    head.appendChild = (child) => (child.nodeName === "STYLE" ? child : Node.prototype.appendChild.call(head, child));
    script.onload = () => {
      delete head.appendChild;
      resolve(window.Plotly);
    };
    script.onerror = () => {
      delete head.appendChild;
      loading = null;
      reject(new Error("The chart library can't be loaded. Close this and try again."));
    };
    styleThroughObjects();
    head.append(rules, script);
  });
  return loading;
}

/** `value` with every "--name" replaced by the theme's colour of that name. */
export function coloured(value) {
  if (typeof value === "string") return colour(value);
  if (Array.isArray(value)) return typeof value[0] === "number" && typeof value.at(-1) !== "string" ? value : value.map(coloured);
  if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
  }
  return value;
}

async function open(dialog, plot) {
  const target = dialog.querySelector(".plot");
  dialog.querySelector("h2").textContent = plot.dataset.title ?? plot.closest(".card").querySelector("h2").textContent;
  dialog.showModal();
  target.textContent = "Loading the chart library …";
  try {
    const Plotly = await plotly();
    const { meta, ...layout } = plot.layout;
    const axes = { xaxis: { ...layout.xaxis, fixedrange: false }, yaxis: { ...layout.yaxis, fixedrange: false } };
    target.textContent = "";
    const config = { displayModeBar: false, responsive: true, scrollZoom: true };
    await Plotly.newPlot(target, coloured(plot.data), { ...coloured(layout), ...coloured(axes), autosize: true, showlegend: true }, config);
  } catch (error) {
    target.textContent = error.message;
  }
}

/** Let every button [data-explore] show its card's chart large. */
export function addExplorer() {
  const dialog = document.getElementById("explorer");
  const target = dialog.querySelector(".plot");
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-explore]");
    if (button) open(dialog, button.closest(".card").querySelector(".plot"));
    const picture = event.target.closest("button[data-picture]");
    if (picture && window.Plotly && target.data) {
      window.Plotly.downloadImage(target, { format: picture.dataset.picture, filename: dialog.querySelector("h2").textContent, width: 1280, height: 640 });
    }
  });
  dialog.addEventListener("close", () => window.Plotly?.purge(target));
}
