"""What the checks found, for people and for programs."""

from collections.abc import Sequence

import msgspec

from trainvitals.hooks.wire.observed import Checked


class PreflightError(ValueError):
    """Something that cannot be checked at all. The message says what was expected."""


_MARKS = {
    "pass": "ok",
    "info": "note",
    "warning": "WARNING",
    "critical": "CRITICAL",
    "skipped": "-",
}


class Report:
    """The results of all checks, in the order in which they ran."""

    def __init__(self, results: Sequence[Checked]) -> None:
        self.results = list(results)

    @property
    def failed(self) -> list[Checked]:
        """Warnings and criticals, the worst first."""
        worst = [result for result in self.results if result.outcome in ("warning", "critical")]
        return sorted(worst, key=lambda result: result.outcome)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failed

    def __str__(self) -> str:
        """A table for the terminal, and what to do about what is wrong."""
        width = max((len(result.check) for result in self.results), default=0)
        lines = [
            f"{_MARKS[result.outcome]:8}  {result.check:{width}}  {result.seconds:5.1f} s  {result.seen}"
            for result in self.results
        ]
        for result in self.failed:
            lines += ["", f"{result.check}: {result.seen}"]
            lines += [f"  expected: {result.expected}", f"  do this: {result.remedy}"]
        return "\n".join(lines)

    def to_json(self) -> str:
        """A JSON list of the results."""
        return msgspec.json.format(msgspec.json.encode(self.results), indent=2).decode()
