// The settings: channels, and the policy of the rules as the server read it.

import { getJson } from "./api.js";
import "./channels.js";
import { element } from "./dom.js";
import "./page.js";

const box = document.getElementById("policy");

async function showPolicy() {
  try {
    const policy = await getJson("/api/v1/policy");
    const problems = (policy.problems ?? []).map((text) => element("p", { class: "problem" }, String(text)));
    box.replaceChildren(...problems, element("pre", { class: "fix", tabindex: "0" }, JSON.stringify(policy, null, 2)));
  } catch (error) {
    box.replaceChildren(element("p", { class: "problem" }, error.message));
  }
}

if ("policy" in box.dataset) showPolicy();
document.body.dataset.drawn = "1";
