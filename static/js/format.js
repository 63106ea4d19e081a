// Numbers, times and packed arrays as people read them. Pure.

/** Three significant digits, 1.2e-5 below 1e-3, thousands separated. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "−Inf";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e7) {
    return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  }
  if (Number.isInteger(value) || size >= 1000) return grouped(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

function grouped(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

export function percent(share) {
  return share === null || !Number.isFinite(share) ? "–" : `${number(Number((share * 100).toPrecision(3)))} %`;
}

let near = null; // takes the browser milliseconds to make
let whole = null;

/** A moment with all that is known of it, in local time. */
export function absolute(date) {
  whole ??= new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "long" });
  return whole.format(date);
}

/** "12 s ago", "3 min ago", "14:05", "Nov 21, 14:05": local time, shorter the nearer. */
export function moment(date, now) {
  const seconds = Math.max(0, (now - date) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  near ??= new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });
  return near.format(date);
}

const KINDS = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i4: Int32Array };

/** A figure's array, plain or packed, as rows: `[[...], ...]` for two dimensions, one array for one. */
export function unpack(value) {
  if (!value || !value.bdata) return value;
  const text = atob(value.bdata);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k += 1) bytes[k] = text.charCodeAt(k); // a call for each takes ten times as long
  const flat = new KINDS[value.dtype](bytes.buffer);
  if (!value.shape) return flat;
  const width = Number(value.shape.split(",")[1]);
  return Array.from({ length: flat.length / width }, (_, row) =>
    flat.subarray(row * width, (row + 1) * width),
  );
}

/** Index of the last of the rising `steps` that is no later than `step`; 0 before the first. */
export function bucketOf(steps, step) {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return Math.max(low - 1, 0);
}
