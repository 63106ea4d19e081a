// Short messages at the foot of the page, with a way back where there is one.

import { element } from "./dom.js";

const UNDO_MS = 12000;
let timer = 0;

/** Show `text`; `undo` (async) is offered for a while. A later message takes the place of an earlier one. */
export function toast(text, undo = null) {
  document.querySelector(".toast")?.remove();
  clearTimeout(timer);
  const box = element("div", { class: "toast", role: "status" }, element("span", {}, text));
  const close = () => box.remove();
  if (undo) {
    const back = async () => {
      close();
      await undo();
    };
    box.append(element("button", { class: "btn small", type: "button", click: back }, "Undo"));
  }
  box.append(element("button", { class: "link", type: "button", click: close, "aria-label": "Close" }, "×"));
  document.body.append(box);
  timer = setTimeout(close, UNDO_MS);
}
