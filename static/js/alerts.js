// The inbox: acknowledge, mute, see what is sent, try the channels.

import { getJson, getText, send } from "./api.js";
import "./channels.js";
import { element } from "./dom.js";
import { bind, localTimes } from "./page.js";
import { toast } from "./toast.js";

const HOUR_MS = 3600e3;
const BACK = { acknowledge: "unacknowledge", unacknowledge: "acknowledge", mute: "unmute" };
const DONE = { acknowledge: "Acknowledged.", unacknowledge: "Taken back.", mute: "Muted.", unmute: "Unmuted." };

const entries = () => [...document.querySelectorAll(".message[data-finding]")].filter((one) => one.offsetParent);

async function refresh(focus) {
  const address = location.pathname + location.search;
  const page = new DOMParser().parseFromString(await getText(address), "text/html");
  document.getElementById("main").replaceChildren(...page.getElementById("main").childNodes);
  document.title = page.title;
  localTimes();
  (document.getElementById(`entry-${focus}`) ?? entries()[0])?.focus();
}

async function act(finding, what, body = null) {
  const at = `/api/v1/findings/${finding}`;
  try {
    await send("POST", `${at}/${what}`, body);
  } catch (error) {
    toast(error.message);
    return;
  }
  await refresh(finding);
  const undo = BACK[what] && (async () => {
    await send("POST", `${at}/${BACK[what]}`);
    await refresh(finding);
  });
  toast(DONE[what], undo);
}

async function preview(button) {
  const entry = button.closest(".message");
  const open = button.getAttribute("aria-expanded") === "true";
  entry.querySelector(".preview")?.remove();
  button.setAttribute("aria-expanded", String(!open));
  if (open) return;
  const box = element("div", { class: "preview" });
  entry.append(box);
  const { channels } = await getJson("/api/v1/channels");
  const ready = channels.filter((channel) => channel.ready);
  if (!ready.length) box.append(element("p", { class: "quiet" }, "No channel is set up, so nothing is sent. In Slack it would look like this:"));
  for (const channel of ready.length ? ready : [{ key: "slack", title: "Slack" }]) {
    try {
      const { payload } = await getJson(`/api/v1/findings/${entry.dataset.finding}/preview/${channel.key}`);
      const raw = element("pre", { class: "fix", tabindex: "0" }, JSON.stringify(payload, null, 2));
      box.append(element("h3", {}, channel.title), payload.blocks ? asSlack(payload) : element("pre", { class: "fix", tabindex: "0" }, payload.body ?? raw.textContent));
      if (payload.blocks) box.append(element("details", {}, element("summary", {}, "as it is sent"), raw));
    } catch (error) {
      box.append(element("p", { class: "quiet" }, `${channel.title}: ${error.message}`));
    }
  }
}

const ESCAPES = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };
const plain = (text) => text.replace(/&(lt|gt|amp);/g, (entity) => ESCAPES[entity]).replace(/\*([^*\n]+)\*/g, "$1").replaceAll("```", "");

/** A Block Kit message about as Slack draws it. */
function asSlack({ blocks }) {
  const parts = blocks.map((block) => {
    if (block.type === "header") return element("p", { class: "shead" }, plain(block.text.text));
    if (block.type === "context") return element("p", { class: "where" }, ...block.elements.map((one) => plain(one.text)));
    if (block.type === "actions") return element("p", { class: "row" }, ...block.elements.map((one) => element("span", { class: "btn small" }, one.text.text)));
    return element("p", { class: "stext" }, plain(block.text.text));
  });
  return element("div", { class: "slack" }, ...parts);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do], button[data-preview]");
  if (!button) return;
  if ("preview" in button.dataset) preview(button);
  else act(button.closest(".message").dataset.finding, button.dataset.do);
});
document.addEventListener("change", (event) => {
  if (!event.target.matches("select[data-mute]") || !event.target.value) return;
  const until = new Date(Date.now() + Number(event.target.value) * HOUR_MS).toISOString();
  act(event.target.closest(".message").dataset.finding, "mute", { until });
});

function step(direction) {
  const all = entries();
  const at = all.findIndex((one) => one.contains(document.activeElement));
  const from = at >= 0 ? at : direction > 0 ? -1 : 0;
  all[(from + direction + all.length) % all.length]?.focus();
}

bind({
  j: () => step(1),
  k: () => step(-1),
  a: () => document.activeElement.closest?.(".message")?.querySelector("[data-do=acknowledge]")?.click(),
});
const asked = document.querySelector(".message.asked");
if (asked) {
  asked.closest("details")?.setAttribute("open", "");
  asked.focus();
  asked.scrollIntoView({ block: "center" });
}
document.body.dataset.drawn = "1";
