"""The table in docs/compatibility.md: one row for each condition, made of what the zoo measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.zoo.checks import FACETS

PATH = Path(__file__).parents[2] / "docs" / "compatibility.md"

HEAD = """# What is recorded under which condition

Made by `tests/zoo`: each row is a small training that is run with and without being watched. In all of them losses,
weights, buffers and random numbers are the same bit for bit, every recorded number agrees with an independent
computation, and nothing stays behind after `tv.finish()`. `make compatibility` measures it again.

`5/5`: recorded for 5 of 5 layers or parameters that have it; histograms count their kinds (of activations, weights,
gradients). `–`: there is nothing of the kind. Non-finite watch: whether a weight that becomes NaN between two samples
is reported at that very step, and whether the report names it.

"""


def row(name: str, measured: Mapping[str, str], missing: Mapping[str, str], note: str = "") -> str:
    """One line of the table."""
    facets: dict[str, list[str]] = {}
    for facet, reason in missing.items():
        facets.setdefault(reason, []).append(facet)
    reasons = [f"{', '.join(which)}: {reason}" for reason, which in facets.items()]
    why = "; ".join([*reasons, note] if note else reasons)
    cells = [name, *(measured[facet] for facet in FACETS), why]
    return "| " + " | ".join(cells) + " |"


def committed_rows() -> dict[str, str]:
    """Name to line of the table as it is in the repository."""
    if not PATH.exists():
        return {}
    lines = [line for line in PATH.read_text().splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}


class Table:
    """The committed table, or with `write` the one that replaces it."""

    def __init__(self, names: Sequence[str], write: bool) -> None:
        """`names`: of all rows, in order."""
        self._names, self.write = names, write
        self._rows = committed_rows()

    def agrees(self, name: str, line: str) -> bool:
        """Whether the table has this line; with `write` it will."""
        if self.write:
            self._rows[name] = line
        return self._rows.get(name) == line

    def save(self) -> None:
        """Write the page, if that was asked for."""
        if self.write:
            titles = "| condition | " + " | ".join(FACETS) + " | where not, why |"
            rule = "|---" * (len(FACETS) + 2) + "|"
            rows = [self._rows[name] for name in self._names if name in self._rows]
            PATH.write_text(HEAD + "\n".join([titles, rule, *rows]) + "\n")
