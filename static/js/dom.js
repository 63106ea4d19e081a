// Elements from values. Text is always text: nothing that comes from a training is ever read as HTML.

/** `<tag>` with attributes (a function is a listener for the event of that name) and children (nodes or text). */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** The icon of a level ("ok", "warn", "crit", "wait", "info"), as the page's template has it. */
export function icon(level, words) {
  const found = document.getElementById(`icon-${level}`) ?? document.getElementById("icon-info");
  const made = found.content.firstElementChild.cloneNode(true);
  made.setAttribute("aria-label", words);
  return made;
}

/** `text` with its middle left out when it is longer than `length`: both ends tell names apart. */
export function shorten(text, length) {
  if (text.length <= length) return text;
  const head = Math.floor((length - 1) / 3);
  return `${text.slice(0, head)}…${text.slice(-(length - 1 - head))}`;
}

const SVG = "http://www.w3.org/2000/svg";

/** A sparkline of `{path, broken}` as the server draws them. */
export function sparkline(spark, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 120 28");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const draw = (name, path) => {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("class", name);
    line.setAttribute("d", path);
    svg.append(line);
  };
  draw("sline", spark.path);
  for (const x of spark.broken) draw("snan", `M${x} 1V27`);
  return svg;
}
