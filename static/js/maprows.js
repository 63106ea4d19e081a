// The rows of the vitals map: blocks that fold, ranges of blocks where there are very many, order, search. Pure.

export const CODES = { full: 100, edge: 26, nonfinite: 127, gradient: 126, frozen: -127, missing: -128 };

const MANY_BLOCKS = 90; // above it, neighbouring blocks are folded into ranges
const FOLD_FROM = 200; // rows above which blocks start folded

/** How much a cell weighs when cells are shown as one: the sickest wins. */
export function weight(code) {
  if (code >= CODES.gradient) return 1000 + code;
  if (code === CODES.missing) return -2;
  if (code === CODES.frozen) return -1;
  return Math.abs(code);
}

/** The worst code of each bucket over some rows. */
export function worstOf(rows) {
  if (rows.length === 1) return rows[0];
  const result = Int8Array.from(rows[0] ?? []);
  for (const row of rows) {
    for (let k = 0; k < result.length; k += 1) {
      if (row[k] !== result[k] && weight(row[k]) > weight(result[k])) result[k] = row[k];
    }
  }
  return result;
}

/** How sick a row of codes is, for the order: NaN counts most. */
export function severity(codes) {
  let sum = 0;
  for (const code of codes) {
    if (code >= CODES.gradient) sum += 300;
    else if (code > CODES.frozen && Math.abs(code) >= CODES.edge) sum += Math.abs(code);
  }
  return sum;
}

/**
 * The tree of a map: [{ key, label, rows: [row numbers], children }], leaves with one row. `rows` are { name, block },
 * the members of a block together.
 */
export function tree(rows) {
  const blocks = [];
  rows.forEach((row, index) => {
    const last = blocks.at(-1);
    if (last && last.label === row.block) last.rows.push(index);
    else blocks.push({ label: row.block, rows: [index] });
  });
  const nodes = blocks.map((block) => {
    const leaves = block.rows.map((index) => ({ key: `l${index}`, label: rows[index].name || "(root)", rows: [index], children: [] }));
    return leaves.length === 1 ? leaves[0] : { key: `b:${block.label}`, label: block.label || "(root)", rows: block.rows, children: leaves };
  });
  if (nodes.length <= MANY_BLOCKS) return nodes;
  const size = Math.ceil(nodes.length / MANY_BLOCKS);
  const ranges = [];
  for (let k = 0; k < nodes.length; k += size) {
    const part = nodes.slice(k, k + size);
    if (part.length === 1) ranges.push(part[0]);
    else {
      ranges.push({
        key: `r:${part[0].label}`,
        label: `${part[0].label} … ${tailOf(part[0].label, part.at(-1).label)}`,
        rows: part.flatMap((node) => node.rows),
        children: part,
      });
    }
  }
  return ranges;
}

/** What of `name` differs from `other`: "blocks.3" after "blocks.0" is "3". */
function tailOf(other, name) {
  const [a, b] = [other.split("."), name.split(".")];
  let same = 0;
  while (same < b.length - 1 && a[same] === b[same]) same += 1;
  return b.slice(same).join(".");
}

/**
 * The rows to show: [{ node, depth, open }]. view: { toggled: Set of keys, search, worst (order), severities by row }.
 * Blocks start folded above `FOLD_FROM` rows, and unfolded below; a toggled key is the other way round.
 */
export function visible(nodes, total, view) {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  const size = (node) => node.rows.reduce((sum, row) => sum + view.severities[row], 0) / Math.sqrt(node.rows.length);
  const order = (list) => (view.worst ? [...list].sort((a, b) => size(b) - size(a)) : list);
  const matches = (node) => words.every((word) => node.label.toLowerCase().includes(word));
  const walk = (list, depth) => {
    for (const node of order(list)) {
      if (words.length) {
        if (node.children.length) walk(node.children, 0);
        else if (matches(node)) found.push({ node, depth: 0, open: false });
        continue;
      }
      const open = node.children.length > 0 && (total > FOLD_FROM) === view.toggled.has(node.key);
      if (!open) found.push({ node, depth, open: false });
      else {
        if (total > FOLD_FROM) found.push({ node, depth, open: true });
        walk(node.children, depth + (total > FOLD_FROM ? 1 : 0));
      }
    }
  };
  walk(nodes, 0);
  return found;
}

/** Keys to unfold so that row `index` is seen on its own. */
export function pathTo(nodes, index) {
  for (const node of nodes) {
    if (!node.rows.includes(index)) continue;
    return node.children.length ? [node.key, ...pathTo(node.children, index)] : [];
  }
  return [];
}

/** Where what the last bucket says ends: one more bucket of its kind, at most where the map does. */
export function sampledUpTo(edges) {
  const count = edges.length;
  return count < 3 ? edges[count - 1] : Math.min(edges[count - 1], 2 * edges[count - 2] - edges[count - 3]);
}

/** For each of `width` pixels from `left` on, the first and last bucket in it: [first, last], -1 outside. */
export function bucketsOf(edges, toPixel, left, width) {
  const first = new Int32Array(width).fill(-1);
  const last = new Int32Array(width).fill(-1);
  for (let k = 0; k + 1 < edges.length; k += 1) {
    const from = Math.floor(toPixel(edges[k]) - left);
    const upTo = Math.max(Math.ceil(toPixel(edges[k + 1]) - left), from + 1);
    for (let pixel = Math.max(from, 0); pixel < Math.min(upTo, width); pixel += 1) {
      if (first[pixel] < 0) first[pixel] = k;
      last[pixel] = k;
    }
  }
  return [first, last];
}
