// The settings: channels, and the policy of the rules as the server read it.

import { getJson } from "./api.js";
import "./channels.js";
import { element } from "./dom.js";
import "./page.js";

const box = document.getElementById("policy");

const STATES = {
  missing: "There is no policy file: every rule judges with its own thresholds.",
  right: "The file is right, and in force.",
  wrong: "The file has mistakes; what was in force before them stays so.",
};

async function showPolicy() {
  try {
    const policy = await getJson("/api/v1/policy");
    const problems = policy.problems.map((problem) => element("li", { class: "problem" }, typeof problem === "string" ? problem : JSON.stringify(problem)));
    box.replaceChildren(
      element("p", { class: "quiet" }, `${STATES[policy.state]} It is read from `, element("code", {}, policy.path)),
      element("ul", { class: "channels" }, ...problems),
      ...(policy.text ? [element("pre", { class: "fix", tabindex: "0" }, policy.text)] : []),
    );
  } catch (error) {
    box.replaceChildren(element("p", { class: "problem" }, error.message));
  }
}

if ("policy" in box.dataset) showPolicy();
document.body.dataset.drawn = "1";
