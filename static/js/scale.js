// Axes: where a value is on the screen, and which values get a tick. Pure.

/** A scale from `range` (exponents on a log axis) to `pixels`; `to` gives NaN for what has no place. */
export function scaleOf(type, range, pixels) {
  const [low, high] = range;
  const [from, upTo] = pixels;
  const span = high - low || 1;
  const log = type === "log";
  return {
    type,
    range,
    pixels,
    to: (value) => from + (((log ? (value > 0 ? Math.log10(value) : NaN) : value) - low) / span) * (upTo - from),
    from: (pixel) => {
      const at = low + ((pixel - from) / (upTo - from || 1)) * span;
      return log ? 10 ** at : at;
    },
  };
}

/** At most about `count` round values within [low, high]. */
export function roundTicks(low, high, count) {
  if (!(high > low) || !Number.isFinite(high - low)) return [];
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    ticks.push(Number((k * step).toPrecision(12)));
  }
  return ticks;
}

/** The range that shows `columns` of values, with a margin; exponents on a log axis. */
export function rangeOf(columns, type, fromZero = false) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of columns) {
    for (const value of values) {
      const at = type === "log" ? (value > 0 ? Math.log10(value) : NaN) : value;
      if (at < low && Number.isFinite(at)) low = at;
      if (at > high && Number.isFinite(at)) high = at;
    }
  }
  if (low > high) return type === "log" ? [-1, 1] : [0, 1];
  if (fromZero && type !== "log") low = Math.min(low, 0);
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.5 || 1;
  return [fromZero && low === 0 ? 0 : low - margin, high + margin];
}

/** `value` of the rising `xs` mapped to `ys`, straight lines between, held at both ends. */
export function between(xs, ys, value) {
  if (!xs.length) return NaN;
  let low = 0;
  let high = xs.length - 1;
  if (value <= xs[low]) return ys[low];
  if (value >= xs[high]) return ys[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= value) low = middle;
    else high = middle;
  }
  const share = (value - xs[low]) / (xs[high] - xs[low] || 1);
  return ys[low] + share * (ys[high] - ys[low]);
}
