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

function said(rule, words, reason) {
  return element("li", {}, element("b", {}, element("code", {}, rule)), element("span", {}, words), ...(reason ? [element("span", { class: "hint" }, reason)] : []));
}

function known({ rule, until, layers = [], projects = [], reason = "" }) {
  const where = [layers.length ? ` in ${layers.join(", ")}` : "", projects.length ? ` of ${projects.join(", ")}` : ""].join("");
  return said(rule, `acknowledged until ${until}${where}`, reason);
}

function mistake({ line, key, message }) {
  const place = [line ? `Line ${line}` : "", key].filter(Boolean).join(", ");
  return element("li", { class: "problem" }, place ? `${place}: ${message}` : message);
}

async function showPolicy() {
  try {
    const policy = await getJson("/api/v1/policy");
    const changed = policy.rules.filter((rule) => rule.changes.length);
    box.replaceChildren(
      element("p", { class: "quiet" }, `${STATES[policy.state]} It is read from `, element("code", {}, policy.path), "."),
      element(
        "ul",
        { class: "channels" },
        ...policy.problems.map(mistake),
        ...changed.map((rule) => said(rule.id, rule.changes.join("; "), rule.reason)),
        ...policy.acknowledged.map(known),
      ),
      ...(policy.text ? [element("pre", { class: "fix", tabindex: "0", role: "group", "aria-label": "The policy file" }, policy.text)] : []),
    );
  } catch (error) {
    box.replaceChildren(element("p", { class: "problem" }, error.message));
  }
}

const shown = "policy" in box.dataset ? showPolicy() : Promise.resolve();
shown.then(() => (document.body.dataset.drawn = "1"));
