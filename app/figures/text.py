"""Numbers and names as people read them."""

import math

MAX_LABEL = 24
"""Characters of a name on an axis."""


def number(value: object) -> str:
    """Three significant digits, "1.2e-5" below 1e-3, thousands separated; words for NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "−Inf"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e7:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size >= 100:
        return f"{float(f'{value:.3g}'):,.0f}" if size < 1000 else f"{value:,.0f}"
    return f"{value:.3g}"


def percent(fraction: float | None) -> str:
    """A fraction as a percentage."""
    if fraction is None or not math.isfinite(fraction):
        return "–"
    return f"{number(round(100 * fraction, 2))} %"


def seconds(value: float) -> str:
    """Seconds in the unit that suits them: "40 ms"."""
    if not value:
        return "0 s"
    size = abs(value)
    unit, times = ("µs", 1e6) if size < 1e-3 else ("ms", 1e3) if size < 1 else ("s", 1)
    return f"{number(round(value * times, 6))} {unit}"


def shorten(name: str, length: int = MAX_LABEL) -> str:
    """`name` with its middle left out when it is longer than `length`: both ends tell layers apart."""
    if len(name) <= length:
        return name
    head = (length - 1) // 3
    return f"{name[:head]}…{name[-(length - 1 - head) :]}"


def opening(text: str, length: int) -> str:
    """`text` up to the last word that fits into `length` characters."""
    if len(text) <= length:
        return text
    head = text[: length - 1]
    return f"{(head.rpartition(' ')[0] or head).rstrip(' …')}…"


def label(name: str, length: int = MAX_LABEL) -> str:
    """`name` for a Plotly text, which reads `<b>`, `<a href>` and entities: here they are characters.

    Line breaks and other control characters become spaces, and a right-to-left override ends at the label's
    end.
    """
    plain = "".join(c if c.isprintable() else " " for c in shorten(name, length)) or "(root)"
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hover(name: str, length: int = 60) -> str:
    """`name` for a hover template, where `%{...}` also has a meaning: here it has none."""
    return label(name, length).replace("{", "&#123;")


def evidence(value: object) -> str:
    """A piece of a finding's evidence as text."""
    match value:
        case None:
            return ""
        case "nan" | "inf" | "-inf":
            return number(float(value))
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{key} {evidence(item)}" for key, item in value.items())
        case list() | tuple():
            more = f" and {len(value) - 8} more" if len(value) > 8 else ""
            return ", ".join(evidence(item) for item in value[:8]) + more
        case _:
            return number(value)
