// Addresses of pages, as app/web/runview.py makes them. Pure.

/** Address of a layer's page. A name that can't be a part of a path goes into the query. */
export function layerAddress(run, name) {
  const base = `/runs/${encodeURIComponent(run)}/layers/`;
  const awkward = !name || name.includes("//") || name.startsWith("/") || name.endsWith("/");
  const dots = name.split("/").some((part) => part === "." || part === "..");
  return awkward || dots ? `${base}?name=${encodeURIComponent(name)}` : base + encodeURIComponent(name);
}

/** `address` with the parameters of `search` ("?s=…") that all pages of a run share. */
export function withView(address, search) {
  const kept = new URLSearchParams(search).get("s");
  return kept ? `${address}${address.includes("?") ? "&" : "?"}s=${encodeURIComponent(kept)}` : address;
}
