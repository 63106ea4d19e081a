// Paints the visible rows of the vitals map: a code a cell, the worst of what shares a pixel.

import { colour, mixed, rgb } from "./colours.js";
import { CODES, weight } from "./maprows.js";

const HEALTH = [[0, "--low"], [0.36, "--low1"], [0.5, "--mid"], [0.64, "--high1"], [1, "--high"]];
const WIDE = 12; // pixels from which a cell is told apart from those beside it
const SHARES = [[0, "--mid"], [1, "--deep"]];

/** Colours by code + 128, as [red, green, blue]. */
export function palette(shares) {
  const made = Array.from({ length: 256 }, (_, index) => {
    const code = index - 128;
    if (code === CODES.missing) return rgb("--unseen");
    if (code === CODES.frozen || code >= CODES.gradient) return rgb("--mid");
    const size = Math.max(-CODES.full, Math.min(CODES.full, code));
    return shares ? mixed(SHARES, Math.max(size, 0) / CODES.full) : mixed(HEALTH, (size / CODES.full + 1) / 2);
  });
  return made;
}

/**
 * Paint rows of codes from `top` on, each `height` high. buckets: [first, last] of each pixel from `left` on.
 */
export function paintCells(context, rows, { left, top, width, height, buckets, colours, gap }) {
  if (!rows.length || width < 1) return;
  const image = new ImageData(width, rows.length);
  const [first, last] = buckets;
  const { data } = image;
  const unseen = colours[0];
  rows.forEach((codes, index) => {
    let at = index * width * 4;
    for (let pixel = 0; pixel < width; pixel += 1, at += 4) {
      let code = first[pixel] < 0 ? CODES.missing : codes[first[pixel]];
      for (let k = first[pixel] + 1; k <= last[pixel]; k += 1) {
        if (codes[k] !== code && weight(codes[k]) > weight(code)) code = codes[k];
      }
      const shade = first[pixel] < 0 ? unseen : colours[code + 128];
      data[at] = shade[0];
      data[at + 1] = shade[1];
      data[at + 2] = shade[2];
      data[at + 3] = 255;
    }
  });
  const sheet = new OffscreenCanvas(width, rows.length);
  sheet.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(sheet, left, top, width, rows.length * height);
  if (gap) {
    context.fillStyle = colour("--card");
    for (let k = 1; k < rows.length; k += 1) context.fillRect(left, top + k * height - 0.5, width, 1);
  }
}

/** Part wide cells from each other: where a run is sampled seldom, each is one sample and the steps until the next. */
export function paintColumns(context, { left, right, top, bottom, edges, toPixel }) {
  context.fillStyle = colour("--card");
  const places = edges.map((edge) => Math.round(toPixel(edge)));
  for (let k = 1; k + 1 < places.length; k += 1) {
    const [before, at, after] = places.slice(k - 1, k + 2);
    if (at > left && at < right && Math.min(at - before, after - at) >= WIDE) context.fillRect(at, top, 1, bottom - top);
  }
}

/** Marks of cells that must be seen at every size: NaN as bars (gradients alone: dots), frozen spans hatched. */
export function paintMarks(context, rows, { left, right, top, height, edges, toPixel }) {
  const bar = Math.max(height, 3);
  rows.forEach((codes, index) => {
    const y = top + index * height;
    let frozen = -1;
    for (let k = 0; k <= codes.length; k += 1) {
      const code = k < codes.length ? codes[k] : CODES.missing;
      if (code === CODES.frozen) {
        if (frozen < 0) frozen = k;
      } else if (frozen >= 0) {
        hatch(context, Math.max(toPixel(edges[frozen]), left), y, Math.min(toPixel(edges[k]), right), height);
        frozen = -1;
      }
      if (code < CODES.gradient) continue;
      const from = toPixel(edges[k]);
      const upTo = toPixel(edges[k + 1]);
      if (upTo < left || from > right) continue;
      context.fillStyle = colour("--nan");
      const start = Math.max(Math.floor(from), left);
      const end = Math.min(Math.max(Math.ceil(upTo), start + 3), right + 1);
      if (code === CODES.nonfinite) context.fillRect(start, y, end - start, bar);
      else {
        const size = Math.max(2, Math.min(height * 0.55, 6));
        for (let x = from; x < Math.max(upTo - size / 2, from + 1); x += Math.max(size * 2, 6)) {
          context.fillRect(x, y + (height - size) / 2, Math.max(size, 3), size);
        }
      }
    }
  });
}

/** Say what the grey end of the map from `left` on is: steps since the last sample. */
export function paintUnsampled(context, left, { right, top, bottom }) {
  if (right - left < 90 || bottom - top < 40) return;
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = colour("--muted");
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText("not sampled", (left + right) / 2, (top + bottom) / 2);
}

function hatch(context, from, y, to, height) {
  if (to <= from) return;
  context.save();
  context.beginPath();
  context.rect(from, y, to - from, height);
  context.clip();
  context.strokeStyle = colour("--faint");
  context.globalAlpha = 0.55;
  context.lineWidth = 1;
  context.beginPath();
  for (let x = from - height; x < to; x += 5) {
    context.moveTo(x, y + height);
    context.lineTo(x + height, y);
  }
  context.stroke();
  context.restore();
}

/** `text` with its middle left out where it is wider than `room`. */
export function fit(context, text, room) {
  const short = text.length > 80 ? `${text.slice(0, 30)}…${text.slice(-49)}` : text;
  if (context.measureText(short).width <= room) return short;
  let cut = short.length;
  const head = Math.min(6, Math.floor(cut / 3));
  let made = short;
  while (cut > 6 && context.measureText(made).width > room) {
    cut -= 1;
    made = `${short.slice(0, head)}…${short.slice(short.length - (cut - head))}`;
  }
  return made;
}
