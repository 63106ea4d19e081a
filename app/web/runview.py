"""What the pages and the figures read of a run: its losses, layers, event lines, verdict and numbers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec
import numpy as np

from trainvitals.app.alerts.contact import findings_of
from trainvitals.app.alerts.plan import is_acknowledged
from trainvitals.app.figures.cells import Line
from trainvitals.app.figures.text import number
from trainvitals.app.figures.types import Mark
from trainvitals.app.rules.context import LOSS_NAMES, is_training_loss
from trainvitals.app.rules.engine import StateError, states_of
from trainvitals.app.rules.finding import Finding, RuleState, RuleStateName
from trainvitals.app.store import Store
from trainvitals.app.store.status import status
from trainvitals.app.store.types import Handling, Run, Series
from trainvitals.app.web.memory import Memory
from trainvitals.app.web.verdict import Verdict, verdict
from trainvitals.hooks.wire.records import Layout

T = TypeVar("T")

MAX_REMEMBERED = 2_000
"""Entries of texts kept for unchanged runs, for each store."""

MAX_OUTLINED = 40
"""Scalars of the training's own that are told of in words and in the list."""
OUTLINE_POINTS = 60
"""Of a sparkline."""
STEP_TIME = "tv/step_time"

_memory = Memory(MAX_REMEMBERED)

COLORS = {"critical": "--crit", "warning": "--warn", "info": "--muted"}
OUTCOMES: dict[RuleStateName, str] = {
    "firing": "found something",
    "resolved": "found what has passed",
    "error": "failed",
    "ok": "found nothing wrong",
    "not enough data": "have too little data",
    "not applicable": "don't apply here",
}
"""What came of rules, by their state, in the order in which people look for it."""
RULE_WORDS = {"lr": "learning rate", "nan": "NaN", "grad": "gradient", "relu": "ReLU"}


class Fact(msgspec.Struct, frozen=True):
    """A number in the header: `more` is a small addition to it."""

    label: str
    value: str
    more: str = ""


class Said(msgspec.Struct, frozen=True):
    """What people said of a finding; Unix seconds, None for nothing that still holds."""

    acknowledged: float | None
    muted_until: float | None


class View(msgspec.Struct, frozen=True):
    """Everything about a run that the page's text shows."""

    run: Run
    status: str
    verdict: Verdict
    findings: list[Finding]
    states: list[RuleState]
    said: dict[str, Said] = {}
    """What people said of findings, by their keys."""

    @property
    def roots(self) -> list[Finding]:
        """Findings that no other explains, as ranked: firing before resolved."""
        return roots_of(self.findings)

    @property
    def checked(self) -> dict[str, list[RuleState]]:
        """The rules by what came of them, in words that follow their number."""
        groups = {
            words: [item for item in self.states if item.state == state]
            for state, words in OUTCOMES.items()
        }
        return {words: found for words, found in groups.items() if found}

    def consequences(self, root: Finding) -> list[Finding]:
        """What followed from `root`, the earliest first."""
        return sorted(root.followers(self.findings), key=lambda item: item.first_step)


def view(store: Store, run: Run, now: float) -> View:
    """Read what the page of `run` says in words."""
    findings, states = judged(store, run)
    current = status(run, now)
    told = verdict(findings, states, current, last_step(run), run.end_message)
    handled = remembered(store, run, "handled", lambda: store.handling(run.id))
    said = {
        item.key: _said(item, handled[item.key], now) for item in findings if item.key in handled
    }
    return View(run, current, told, findings, states, said)


def _said(item: Finding, handled: Handling, now: float) -> Said:
    until = handled.muted_until
    return Said(
        handled.acknowledged if is_acknowledged(item, handled) else None,
        until if until is not None and until > now else None,
    )


def judged(store: Store, run: Run) -> tuple[list[Finding], list[RuleState]]:
    """What is to be told of a run, and where each rule stands."""
    return remembered(store, run, "findings", lambda: _judged(store, run))


def roots_of(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that no other explains, as ranked: firing before resolved."""
    return sorted(
        (item for item in findings if item.root), key=lambda item: item.state == "resolved"
    )


def _judged(store: Store, run: Run) -> tuple[list[Finding], list[RuleState]]:
    state = store.evaluation(run.id).state
    try:
        states = [] if state is None else states_of(state)
    except StateError:  # of another release; the evaluator judges the run anew
        states = []
    return findings_of(store, run.id), states


def remembered(store: Store, run: Run, what: str, read: Callable[[], T]) -> T:
    """What `read` gave for this version of the run: many pages ask again every second. For small values."""
    return _memory.get(store, run, what, read)


def last_step(run: Run) -> int:
    """The run's last step; -1 before the first."""
    return -1 if run.last_step is None else int(run.last_step)


def training_loss(names: Sequence[str]) -> str | None:
    """The scalar that is the training loss, by name; None when nothing looks like it."""
    for name in LOSS_NAMES:
        if name in names:
            return name
    return next((name for name in sorted(names) if is_training_loss(name)), None)


def validation_losses(names: Sequence[str]) -> list[str]:
    """Scalars that are losses on data not trained on."""
    marks = ("val", "valid", "eval", "test")
    return [name for name in names if "loss" in name.lower() and name.lower().startswith(marks)]


def rule_words(rule: str) -> str:
    """A rule's id as words: "update-ratio-high" is "update ratio high"."""
    return " ".join(RULE_WORDS.get(part, part) for part in rule.replace("_", "-").split("-"))


def is_dated(title: str, step: int) -> bool:
    """Whether a finding's title says at which step it began, so that it need not stand beside it again."""
    return re.search(rf"\bstep {step}\b", title) is not None


def marks(store: Store, run: Run) -> list[Mark]:
    """Event lines: root findings by their number in the list, and what `happened` at other steps."""
    findings, _ = judged(store, run)
    result = [
        Mark(item.first_step, f"{place} {rule_words(item.rule)}", COLORS[item.severity])
        for place, item in enumerate(roots_of(findings), start=1)
    ]
    told = {mark.step for mark in result}
    return result + [mark for mark in happened(store, run) if mark.step not in told]


def happened(store: Store, run: Run) -> list[Mark]:
    """Event lines of the first NaN, jumps of the learning rate, resumes: one a step."""
    result: list[Mark] = []
    taken: set[int] = set()
    seen = set()
    for event in store.events(run.id, limit=500):
        text, color = {"nonfinite": ("first NaN/Inf", "--nan"), "lr": ("lr change", "--muted")}.get(
            event.kind, ("", "")
        )
        if not text or event.step in taken or (event.kind == "nonfinite" and event.kind in seen):
            continue
        seen.add(event.kind)
        taken.add(event.step)
        result.append(Mark(event.step, text, color))
    result += [
        Mark(step, "resumed", "--accent") for step in store.resumes(run.id) if step not in taken
    ]
    return result


def lines(layouts: Sequence[Layout]) -> list[Line]:
    """The layers of a run in forward order; those that only have parameters come last."""
    types: dict[str, str] = {}
    owned: dict[str, list[str]] = {}
    weights: dict[str, list[str]] = {}
    frozen: dict[str, bool] = {}
    for layout in sorted(layouts, key=lambda layout: layout.kind):
        for row in layout.rows if layout.kind != "logged" else ():
            layer = row.layer if layout.kind == "parameter" else row.name
            types.setdefault(layer, row.type)
            if layout.kind == "parameter":
                owned.setdefault(layer, []).append(row.name)
                frozen[layer] = frozen.get(layer, True) and not row.trainable
                if len(row.shape) >= 2:
                    weights.setdefault(layer, []).append(row.name)
    return [
        Line(
            name=name,
            type=kind,
            trainable=not frozen.get(name, False),
            parameters=owned.get(name, []),
            weights=weights.get(name, []),
        )
        for name, kind in types.items()
    ]


def facts(store: Store, run: Run, names: Sequence[str]) -> list[Fact]:
    """Four numbers that people look for first: losses, accuracy or gradient norm, the step."""
    loss, validation, accuracy, rest = _looked_for(names)
    wanted = [name for name in (loss, *validation, *accuracy) if name]
    wanted += rest[: max(3 - len(wanted), 0)]
    read = outline(store, run, names)
    result = []
    for name in wanted:
        series = read.get(name)
        if series is None:
            continue
        last = float(series.last[-1])
        more = ""
        if name in validation:
            best = float(np.nanmin(series.min)) if np.isfinite(series.min).any() else math.nan
            more = f"best {number(best)}"
        if name in accuracy and 0 <= last <= 1:
            result.append(Fact(_fact_label(name, loss), f"{number(round(100 * last, 1))} %", more))
        else:
            result.append(Fact(_fact_label(name, loss), number(last), more))
    step = last_step(run)
    result.append(Fact("step", number(step) if step >= 0 else "–"))
    return result[-4:]


def _looked_for(names: Sequence[str]) -> tuple[str | None, list[str], list[str], list[str]]:
    """Training loss, validation loss, accuracy, and what stands in for them."""
    accuracy = [name for name in logged(names) if "acc" in name.lower()]
    accuracy.sort(key=lambda name: not name.lower().startswith("val"))
    rest = [name for name in ("tv/lr/0", "tv/grad_norm") if name in names]
    return training_loss(names), validation_losses(names)[:1], accuracy[:1], rest


def logged(names: Sequence[str]) -> list[str]:
    """Scalars that the training's own code logs."""
    return [name for name in names if not name.startswith("tv/")]


def outline(store: Store, run: Run, names: Sequence[str]) -> dict[str, Series]:
    """What words, the list and its sparkline tell of scalars: those that have a value, by few points.

    One question for all who ask for some of it.
    """
    loss, validation, accuracy, rest = _looked_for(names)
    first = [*([loss] if loss else []), *validation, *accuracy, *rest, STEP_TIME]
    wanted = list(dict.fromkeys([*first, *logged(names)[:MAX_OUTLINED]]))
    read = store.series(run.id, wanted, points=OUTLINE_POINTS)
    return {name: series for name, series in read.items() if len(series.steps)}


def layer_address(run: str, name: str) -> str:
    """Address of a layer's page. A name that can't be a part of a path goes into the query."""
    base = f"/runs/{quote(run)}/layers/"
    awkward = not name or "//" in name or name.startswith("/") or name.endswith("/")
    if awkward or any(part in (".", "..") for part in name.split("/")):
        return f"{base}?name={quote(name, safe='')}"
    return base + quote(name, safe="")


def unit_series(store: Store, run: Run, unit: str) -> tuple[list[int], list[float], str]:
    """Steps and where they are in `unit` ("epoch", "time" in hours, "tokens"), and what to log where that is unknown.

    Epochs and tokens are those that the training logs. Time is the sum of step times: pauses are not in it.
    """
    names = store.scalar_names(run.id)
    if unit == "time":
        wanted, needed = [STEP_TIME], "Step times come with the first samples."
    else:
        words = {"epoch": ("epoch",), "tokens": ("tokens", "tokens_seen", "n_tokens")}[unit]
        wanted = [name for name in names if name.rsplit("/", 1)[-1].lower() in words]
        needed = f'Log it: tv.log({{"{words[0]}": …}}).'
    read = store.series(run.id, wanted[:1], points=400)
    series = next(iter(read.values()), None)
    if series is None or len(series.steps) < 2:
        return [], [], needed
    steps, values = series.steps, np.asarray(series.last, np.float64)
    if unit == "time":
        filled = np.where(np.isfinite(series.mean), series.mean, np.nanmedian(series.mean))
        spans = np.diff(steps, prepend=0)
        values = np.cumsum(spans * filled) / 3600
    rising = np.isfinite(values) & (
        values >= np.maximum.accumulate(np.nan_to_num(values, nan=-np.inf))
    )
    return steps[rising].tolist(), values[rising].tolist(), needed


def indices(names: Mapping[str, int], wanted: Sequence[str]) -> list[int]:
    """Positions of the `wanted` names that are known."""
    return [names[name] for name in wanted if name in names]


def _fact_label(name: str, loss: str | None) -> str:
    if name == loss:
        return "train loss"
    words = {"tv/grad_norm": "gradient norm", "tv/lr/0": "learning rate"}
    return words.get(name, name.replace("_", " ").replace("/", " "))
