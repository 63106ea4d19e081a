// The theme's colours, as names ("--train") and as numbers for pixels.

let known = new Map();
let numbers = new Map();

/** The colour of a custom property, or `name` itself where it is no property. */
export function colour(name) {
  if (typeof name !== "string" || !name.startsWith("--")) return name;
  if (!known.has(name)) {
    known.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  }
  return known.get(name);
}

/** [red, green, blue] of a colour in hexadecimal form. */
export function rgb(name) {
  if (!numbers.has(name)) {
    const hex = colour(name).replace("#", "");
    const full = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
    numbers.set(name, [0, 2, 4].map((at) => parseInt(full.slice(at, at + 2), 16)));
  }
  return numbers.get(name);
}

/** The colour at `share` (0 to 1) of a scale of [share, name] stops. */
export function mixed(stops, share) {
  const at = stops.findIndex(([place]) => place >= share);
  if (at <= 0) return rgb(stops[at < 0 ? stops.length - 1 : 0][1]);
  const [low, from] = stops[at - 1];
  const [high, to] = stops[at];
  const part = (share - low) / (high - low || 1);
  const [a, b] = [rgb(from), rgb(to)];
  return a.map((value, k) => Math.round(value + part * (b[k] - value)));
}

addEventListener("themechange", () => {
  known = new Map();
  numbers = new Map();
});
