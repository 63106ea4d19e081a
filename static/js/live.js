// Asks once a second whether something changed, while the tab is visible. Slower when the run has ended or the
// server is away.

const EVERY_MS = 1000;
const ENDED_MS = 10000;
const LONGEST_MS = 15000;

/** Call `ask` again and again, one call at a time. It is async and returns in how many ms to ask again; true: as usual,
 * false: the run has ended. */
export function poll(ask) {
  let wait = EVERY_MS;
  let timer = 0;
  let busy = false;

  async function turn() {
    clearTimeout(timer);
    if (busy) return;
    if (document.hidden) return; // visibilitychange goes on
    busy = true;
    try {
      const again = await ask();
      wait = again === true ? EVERY_MS : again || ENDED_MS;
    } catch {
      wait = Math.min(Math.max(wait, EVERY_MS) * 2, LONGEST_MS);
    }
    busy = false;
    timer = setTimeout(turn, wait);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) turn();
  });
  timer = setTimeout(turn, wait);
}
