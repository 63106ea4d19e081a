// The buttons that try a channel.

import { send } from "./api.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-test]");
  if (!button) return;
  const result = button.parentElement.querySelector(".result");
  button.disabled = true;
  result.textContent = "sending…";
  try {
    const answer = await send("POST", `/api/v1/channels/${button.dataset.test}/test`);
    result.textContent = answer.message;
    result.className = `result ${answer.ok ? "good" : "problem"}`;
  } catch (error) {
    result.textContent = error.message;
    result.className = "result problem";
  }
  button.disabled = false;
});
