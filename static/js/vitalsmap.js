// The vitals map: every layer over every step. Folds, sorts, searches, follows the shared cursor and brush, has a cell
// cursor of its own for the keyboard.

import { getJson } from "./api.js";
import { axis, fitted, follow, moveCursor, picked, showTip } from "./charts.js";
import { colour } from "./colours.js";
import { grownMap } from "./deltas.js";
import { bucketOf, number } from "./format.js";
import { about, printable, tableOf, wordOf } from "./mapabout.js";
import { fit, paintCells, paintColumns, paintMarks, paintUnsampled, palette } from "./mappaint.js";
import { bucketsOf, pathTo, sampledUpTo, severity, tree, visible, worstOf } from "./maprows.js";
import { roundTicks, scaleOf } from "./scale.js";

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const AXIS = 24;
const NAMED = 11; // height from which every row has its name

export class VitalsMap {
  /** `element` holds the map; `rowAddress(name)` gives the values of a row; `say` tells screen readers. */
  constructor(element, { rowAddress, say, changed }) {
    this.element = element;
    this.rowAddress = rowAddress;
    this.say = say;
    this.changed = changed;
    this.rows = [];
    this.codes = [];
    this.edges = [];
    this.marks = [];
    this.flags = new Map();
    this.toggled = new Set();
    this.search = "";
    this.worst = false;
    this.at = null;
    this.values = new Map();
    this.scroller = document.createElement("div");
    this.scroller.className = "mapscroll";
    this.spacer = document.createElement("div");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.scroller.append(this.canvas, this.spacer);
    element.replaceChildren(this.scroller);
    follow(element, () => this.view());
    this.scroller.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => {
      if (this.width !== element.clientWidth) this.arrange();
    }).observe(element);
    element.addEventListener("pointermove", (event) => this.hover(event));
    element.addEventListener("pointerleave", () => (document.getElementById("tip").hidden = true));
    element.addEventListener("click", (event) => this.click(event));
    element.addEventListener("keydown", (event) => this.key(event));
    addEventListener("themechange", () => {
      this.colours = null;
      this.later();
    });
  }

  /** Take an answer of /map: all of it, or its last buckets. */
  take(answer) {
    if (answer.rows) {
      const same = answer.rows.length === this.rows.length && answer.rows.every((row, k) => row.name === this.rows[k].name);
      if (!same) Object.assign(this, { codes: [], edges: [] });
      this.rows = answer.rows;
      this.tree = tree(this.rows);
      if (this.shares !== answer.shares) this.colours = null;
    }
    if (this.rows.length) Object.assign(this, grownMap(this, answer));
    this.sampled = sampledUpTo(this.edges);
    this.shares = answer.shares;
    this.token = answer.token;
    this.summary = answer.summary;
    this.values.clear();
    this.groups = new Map();
    this.severities = this.codes.map(severity);
    this.element.removeAttribute("data-skeleton");
    this.canvas.setAttribute("aria-label", this.summary);
    this.arrange();
  }

  /** Event lines of the other charts. */
  setMarks(shapes) {
    const marks = shapes.filter((shape) => shape.type === "line");
    if (JSON.stringify(marks) === JSON.stringify(this.marks)) return;
    this.marks = marks;
    this.later();
  }

  /** Findings by layer name: [{ n, step, color }]. */
  setFlags(flags) {
    if (JSON.stringify([...flags]) === JSON.stringify([...this.flags])) return;
    this.flags = flags;
    this.later();
  }

  setRange(range) {
    this.range = range;
    this.later();
  }

  setView({ search = this.search, worst = this.worst, toggled = this.toggled }) {
    Object.assign(this, { search, worst, toggled });
    this.at = null;
    this.arrange();
  }

  /** Unfold, scroll to and mark the layer `name`. */
  reveal(name) {
    const index = this.rows.findIndex((row) => row.name === name);
    if (index < 0) return;
    this.search = "";
    const shown = () => this.lines.findIndex((line) => line.node.rows.length === 1 && line.node.rows[0] === index);
    if (shown() < 0) for (const key of pathTo(this.tree, index)) this.flip(key, true);
    this.arrange();
    this.at = { line: shown(), bucket: this.at?.bucket ?? this.edges.length - 2 };
    this.scrollTo(this.at.line);
    this.later();
  }

  flip(key, open) {
    const byDefault = this.rows.length <= 200;
    if (open === byDefault) this.toggled.delete(key);
    else this.toggled.add(key);
  }

  arrange() {
    if (!this.tree) return;
    this.lines = visible(this.tree, this.rows.length, this);
    const width = this.element.clientWidth;
    this.width = width;
    const most = Math.min(Math.max(innerHeight * 0.66, 320), width < 520 ? 460 : 1200);
    const count = Math.max(this.lines.length, 1);
    this.height = Math.max(width < 520 ? 4 : 3, Math.min(this.search ? 18 : 22, Math.floor((most / count) * 4) / 4));
    if (this.search) this.height = 18;
    const total = this.height * count;
    const seen = Math.min(total, most);
    this.element.style.height = `${seen + AXIS + 6}px`;
    this.scroller.style.height = `${seen + AXIS + 4}px`;
    this.spacer.style.height = `${Math.max(total - seen, 0)}px`;
    this.seen = seen;
    if (this.element.dataset.painted) this.later();
    else this.paint(); // into the frame that comes, not the one after
  }

  later() {
    if (this.waiting || !this.tree) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  view() {
    return this.box && this.rows.length ? { ...this.box, toPixel: this.x.to, toStep: this.x.from } : null;
  }

  codesOf(line) {
    const { node: held } = line;
    if (held.rows.length === 1) return this.codes[held.rows[0]];
    if (!this.groups.has(held.key)) this.groups.set(held.key, worstOf(held.rows.map((row) => this.codes[row])));
    return this.groups.get(held.key);
  }

  paint() {
    const width = this.element.clientWidth;
    if (!width) return;
    this.colours ??= palette(this.shares);
    const height = this.seen + AXIS + 4;
    const context = fitted(this.canvas, width, height);
    context.clearRect(0, 0, width, height);
    this.element.dataset.painted = String(Number(this.element.dataset.painted ?? 0) + 1);
    if (!this.rows.length || !this.lines.length) return this.empty(context, width, height);
    const left = width < 520 ? 96 : 128;
    this.box = { left, right: width - (width < 520 ? 24 : 52), top: 2, bottom: 2 + this.seen };
    const range = this.range ?? [this.edges[0], Math.max(this.edges.at(-1) - 1, this.edges[0] + 1)];
    this.x = scaleOf("linear", range, [this.box.left, this.box.right]);
    const first = Math.floor(this.scroller.scrollTop / this.height);
    const offset = this.box.top + first * this.height - this.scroller.scrollTop;
    const lines = this.lines.slice(first, first + Math.ceil(this.seen / this.height) + 1);
    const rows = lines.map((line) => this.codesOf(line));
    const wide = Math.round(this.box.right - left);
    const edges = [...this.edges.slice(0, -1), this.sampled];
    const buckets = bucketsOf(edges, this.x.to, left, wide);
    context.save();
    context.beginPath();
    context.rect(0, 0, width, this.box.top + this.seen + 2); // names of low rows are higher than these
    context.clip();
    const place = { left, right: this.box.right, top: offset, width: wide, height: this.height, buckets, colours: this.colours, edges, toPixel: this.x.to };
    paintCells(context, rows, { ...place, gap: this.height >= 7 });
    paintColumns(context, { ...this.box, edges, toPixel: this.x.to });
    this.paintBlocks(context, lines, offset, width);
    paintMarks(context, rows, place);
    this.paintLabels(context, lines, offset, width);
    this.paintCell(context, first, offset);
    paintUnsampled(context, Math.max(this.x.to(this.sampled), left), this.box);
    context.restore();
    this.paintEvents(context);
    this.paintAxis(context);
  }

  empty(context, width, height) {
    this.box = null;
    context.font = `13px ${FONT}`;
    context.fillStyle = colour("--muted");
    context.textAlign = "center";
    const text = this.rows.length ? `No layer's name has “${this.search}” in it.` : this.summary;
    context.fillText(text, width / 2, height / 2, width - 16);
  }

  paintBlocks(context, lines, offset) {
    context.fillStyle = colour("--card");
    lines.forEach((line, index) => {
      const before = lines[index - 1];
      if (before && this.blockOf(before) !== this.blockOf(line)) {
        context.fillRect(this.box.left, offset + index * this.height - 1, this.box.right - this.box.left, this.height < 7 ? 1 : 2);
      }
    });
  }

  blockOf(line) {
    return this.rows[line.node.rows[0]].block;
  }

  paintLabels(context, lines, offset, width) {
    context.textBaseline = "middle";
    context.textAlign = "right";
    const room = this.box.left - 8;
    const told = new Set(lines.flatMap((line) => line.node.rows.filter((row) => this.flags.has(this.rows[row].name))));
    const named = this.height >= NAMED;
    let last = -Infinity;
    let from = 0;
    lines.forEach((line, index) => {
      const bold = line.node.rows.some((row) => told.has(row));
      const folded = line.node.children.length > 0;
      const y = offset + (index + 0.5) * this.height;
      const flag = line.node.rows.map((row) => this.flags.get(this.rows[row].name)).find(Boolean);
      if (flag) {
        context.font = `600 11px ${FONT}`;
        context.textAlign = "left";
        context.fillStyle = colour(flag.color);
        context.fillText(flag.n, this.box.right + 6, y);
        context.textAlign = "right";
      }
      const next = lines[index + 1];
      const whole = named || folded || this.worst || this.search;
      const ends = !next || this.blockOf(next) !== this.blockOf(line);
      if (!whole && !ends && !bold) return;
      const middle = whole || bold ? y : offset + ((from + index + 1) / 2) * this.height;
      if (ends) from = index + 1;
      if (middle - last < 11 && !(bold && middle - last > 6)) return;
      last = middle;
      context.font = `${bold ? "600 " : ""}11px ${FONT}`;
      context.fillStyle = colour(bold ? "--text" : "--muted");
      const text = whole || bold ? line.node.label : this.blockOf(line) || "(root)";
      const sign = folded ? (line.open ? "▾ " : "▸ ") : "";
      context.fillText(fit(context, sign + printable(text), room - line.depth * 6), room, middle);
    });
  }

  paintCell(context, first, offset) {
    if (!this.at || this.at.line < 0) return;
    const y = offset + (this.at.line - first) * this.height;
    context.strokeStyle = colour("--text");
    context.lineWidth = 1.5;
    context.strokeRect(this.box.left, y + 0.5, this.box.right - this.box.left, Math.max(this.height - 1, 2));
    if (this.at.bucket !== undefined) {
      const x = this.x.to(this.edges[this.at.bucket]);
      const wide = Math.max(this.x.to(this.edges[this.at.bucket + 1]) - x, 4);
      context.strokeStyle = colour("--accent");
      context.lineWidth = 2;
      context.strokeRect(x - 1, y - 1, wide + 2, this.height + 2);
    }
  }

  paintEvents(context) {
    context.setLineDash([3, 3]);
    context.lineWidth = 1.3;
    for (const shape of this.marks) {
      const at = this.x.to(shape.x0);
      if (at < this.box.left || at > this.box.right) continue;
      context.strokeStyle = colour(shape.line.color);
      context.beginPath();
      context.moveTo(at, this.box.top);
      context.lineTo(at, this.box.bottom);
      context.stroke();
    }
    context.setLineDash([]);
  }

  paintAxis(context) {
    const { box, x } = this;
    context.font = `11px ${FONT}`;
    context.fillStyle = colour("--muted");
    context.strokeStyle = colour("--line");
    context.lineWidth = 1;
    context.textBaseline = "top";
    const ticks = axis.ticks?.(x, box) ?? roundTicks(...x.range, Math.max(2, Math.min(7, (box.right - box.left) / 90))).map((step) => [step, number(step)]);
    for (const [step, text] of ticks) {
      const at = x.to(step);
      if (at < box.left - 0.5 || at > box.right + 0.5) continue;
      context.beginPath();
      context.moveTo(at, box.bottom + 2);
      context.lineTo(at, box.bottom + 6);
      context.stroke();
      context.textAlign = "center";
      context.fillText(text, at, box.bottom + 8);
    }
  }

  /** The line and bucket under a pointer: { line, bucket (null in the margin) }, null outside. */
  under(event) {
    if (!this.box) return null;
    const frame = this.element.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    if (y < this.box.top || y > this.box.bottom || x > this.box.right) return null;
    const line = Math.floor((y - this.box.top + this.scroller.scrollTop) / this.height);
    if (line < 0 || line >= this.lines.length) return null;
    return { line, bucket: x < this.box.left ? null : bucketOf(this.edges, Math.floor(this.x.from(x))) };
  }

  click(event) {
    if (Math.abs(event.timeStamp - Number(this.element.dataset.dragged ?? -1e9)) < 50) return;
    const under = this.under(event);
    if (under) this.act(under);
  }

  /** Open the layer, or fold the block: what a click or Enter does. */
  act({ line, bucket }) {
    const shown = this.lines[line];
    if (shown.node.children.length) this.toggle(shown.node.key, !shown.open);
    else if (bucket === null && this.parentOf(shown)) this.toggle(this.parentOf(shown), false);
    else picked.row(this.rows[shown.node.rows[0]]);
  }

  parentOf(line) {
    return pathTo(this.tree, line.node.rows[0]).at(-1);
  }

  toggle(key, open) {
    this.flip(key, open);
    this.arrange();
    this.changed?.();
  }

  hover(event) {
    const under = this.under(event);
    this.element.style.cursor = under ? "pointer" : "";
    if (!under || event.buttons) {
      document.getElementById("tip").hidden = true;
      return;
    }
    showTip(event, about(this, under, () => this.hover(event)));
  }

  async ask(name, again) {
    try {
      this.values.set(name, await getJson(this.rowAddress(name)));
    } catch {
      return; // the banner says that the server is away; the tip stays without numbers
    }
    again();
  }

  key(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] };
    if (event.target !== this.element || !this.box) return;
    const held = this.at ?? { line: 0, bucket: this.edges.length - 2 };
    if (event.key === "Enter" || event.key === " ") this.act(held);
    else if (moves[event.key]) {
      const [down, right] = this.at ? moves[event.key] : [0, 0];
      const clamp = (value, most) => Math.max(0, Math.min(most, value));
      this.at = { line: clamp(held.line + down, this.lines.length - 1), bucket: clamp((held.bucket ?? 0) + right, this.edges.length - 2) };
      this.scrollTo(this.at.line);
      const shown = this.lines[this.at.line];
      const step = this.edges[this.at.bucket];
      moveCursor(step);
      this.say(`${shown.node.label}, step ${number(step)}: ${wordOf(this, this.codesOf(shown)[this.at.bucket])}`);
      this.later();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  scrollTo(line) {
    const top = line * this.height;
    const { scrollTop } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + this.height > scrollTop + this.seen) this.scroller.scrollTop = top + this.height - this.seen;
  }

  /** The map as rows of text. */
  table() {
    return tableOf(this);
  }
}
