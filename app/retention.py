"""How long runs are kept: what the setting `retention` says."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

DAY_S: Final = 86_400.0
_UNITS: Final = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?(MB|GB|TB)")
_FOREVER: Final = "forever"


class RetentionError(ValueError):
    """A text that is no retention policy. The message says what was expected."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What is kept of a project; None for everything."""

    days: float | None = None
    """Runs that nothing was heard of for longer are deleted."""
    runs: int | None = None
    """So many of the newest runs are kept, the others deleted."""
    histogram_days: float | None = None
    """Histograms of runs that nothing was heard of for longer are dropped."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of all projects."""

    default: Keep = Keep()
    projects: Mapping[str, Keep] = field(default_factory=dict)
    size: int | None = None
    """What the database may hold, bytes: beyond it deleted runs go first, old histograms next, then old runs."""
    undo_days: float = 7.0
    """How long a deleted run can be restored."""

    def of(self, project: str) -> Keep:
        """What is kept of `project`."""
        return self.projects.get(project, self.default)

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """A policy such as "days=90 histogram_days=30 size=20GB; digits: days=7 runs=50".

        The parts after the first `;` are for single projects, which take from the first part what they do not
        name. Raises RetentionError.
        """
        general, *special = text.split(";")
        own = _values(general, "")
        size, undo_days = own.pop("size", None), own.pop("undo_days", 7.0)
        default = Keep(**own)  # type: ignore[arg-type]
        projects = {}
        for part in special:
            name, colon, rest = part.rpartition(":")
            if not colon or not name.strip():
                raise RetentionError(
                    f"{part.strip()!r} names no project; expected PROJECT: days=7."
                )
            changes = _values(rest, name.strip())
            projects[name.strip()] = dataclasses.replace(default, **changes)  # type: ignore[arg-type]
        if undo_days is None:
            raise RetentionError("undo_days=forever would never free anything; expected days.")
        return cls(default, projects, None if size is None else int(size), undo_days)


def _values(text: str, project: str) -> dict[str, float | None]:
    names = [item.name for item in dataclasses.fields(Keep)]
    if not project:
        names += ["size", "undo_days"]
    found = {}
    for word in re.sub(r"\s*=\s*", "=", text).replace(",", " ").split():
        name, _, value = word.partition("=")
        if name not in names:
            of = f" for the project {project!r}" if project else ""
            raise RetentionError(f"{word!r} is unknown{of}; expected {'=… '.join(names)}=….")
        found[name] = None if value == _FOREVER else _number(name, value)
    return found


def _number(name: str, text: str) -> float:
    if name == "size":
        if match := _SIZE.fullmatch(text):
            return float(match[1]) * _UNITS[match[2]]
        raise RetentionError(f"size={text} is no size; expected one like 500MB, 20GB or 1.5TB.")
    whole = name == "runs"
    if not re.fullmatch(r"\d{1,9}" if whole else r"\d{1,9}(\.\d+)?", text):
        kind = "a whole number" if whole else "a number of days"
        raise RetentionError(f"{name}={text} is not possible; expected {kind}, or {_FOREVER}.")
    return int(text) if whole else float(text)
