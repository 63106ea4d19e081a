"""The charts of the pages, made from what the store reads: each has key, title, hint, data and layout."""

from typing import Any, Literal

import msgspec
import numpy as np

from trainvitals.app.figures import distribution
from trainvitals.app.figures import layer as layer_figures
from trainvitals.app.figures import series as series_figures
from trainvitals.app.figures.base import empty
from trainvitals.app.figures.cells import Line
from trainvitals.app.figures.marks import stacked, unlabelled
from trainvitals.app.figures.types import Figure
from trainvitals.app.store import Store
from trainvitals.app.store.types import Run, Series
from trainvitals.app.web import runview
from trainvitals.hooks.wire.columns import SCALARS, Scale
from trainvitals.hooks.wire.records import HistogramKind

POINTS = 800
SMALL_POINTS = 400
MAX_CHARTS = 40
"""Small charts on a run's page; a run with more metrics shows the first ones by name."""
MAX_HISTOGRAMS = 12
"""Logged histograms on a run's page; a run with more shows the first ones in the order of their names."""
HISTOGRAMS: dict[HistogramKind, str] = {
    "weight": "weights",
    "gradient": "gradients",
    "activation": "activations",
}
"""What a layer's histograms are of."""

_DECLARED = {column.key: column for column in SCALARS}
SETTLED_S, SETTLED_STEPS = 5.0, 100
"""How long a training goes on until its monitoring share tells something: the first samples are taken on credit."""
_OWN_ORDER = ("tv/grad_norm", "tv/step_time", "tv/data_wait", "tv/overhead")
_SYSTEM = "tv/system/"
_SYSTEM_ORDER = [column.key for column in SCALARS if column.key.startswith(_SYSTEM)]

Chart = dict[str, Any]
Form = Literal["heatmap", "ridgeline", "quantiles"]
Axis = Literal["auto", "log", "linear"]
SCALES: tuple[Axis, ...] = ("auto", "log", "linear")
FORMS: tuple[Form, ...] = ("heatmap", "ridgeline", "quantiles")


class Look(msgspec.Struct, frozen=True):
    """What of a run is shown and how: as it stands in the address of the page."""

    start: int | None = None
    """Steps from `start` to before `stop`; None for no limit."""
    stop: int | None = None
    smoothing: float | None = None
    """Share of the earlier level in a smoothed line, 0 to 0.99; None for what suits the length."""
    scale: Axis = "auto"


class Charts:
    """The charts of one run under one look."""

    def __init__(self, store: Store, run: Run, look: Look) -> None:
        self._store = store
        self._run = run
        self._look = look
        self._end = runview.last_step(run) + 1
        low, high = look.start or 0, self._end if look.stop is None else look.stop
        found = [mark for mark in runview.marks(store, run) if low <= mark.step <= high]
        self._marks = stacked(found, low, high)
        self._lines = unlabelled(self._marks)

    @property
    def _stop(self) -> int:
        """The first step after those shown."""
        return self._end if self._look.stop is None else min(self._look.stop, self._end)

    def loss(self) -> Figure:
        """Training and validation loss with event lines."""
        names = self._store.scalar_names(self._run.id)
        name = runview.training_loss(names)
        validation = runview.validation_losses(names)[: series_figures.MAX_VALIDATION]
        read = self._read([*([name] if name else []), *validation], POINTS)
        figure = series_figures.loss(
            read.get(name) if name else None,
            {key: read[key] for key in validation if key in read},
            self._marks,
            name=name or "loss",
            smoothing=self._look.smoothing,
            scale=self._look.scale,
        )
        return self._over(figure)

    def metrics(self) -> list[Chart]:
        """Every other scalar as a small chart; those of the machine have the group "system"."""
        names = self._store.scalar_names(self._run.id)
        hidden = {runview.training_loss(names), *runview.validation_losses(names)}
        rates = [name for name in names if name.startswith("tv/lr/")][:6]
        own = [name for name in _OWN_ORDER if name in names]
        logged = sorted(n for n in names if not n.startswith("tv/") and n not in hidden)
        system = sorted((n for n in names if n.startswith(_SYSTEM)), key=_system_place)[:MAX_CHARTS]
        read = self._read([*[*rates, *own, *logged][:MAX_CHARTS], *system], SMALL_POINTS)
        if not self._has_settled(read.get(runview.STEP_TIME)):
            read.pop("tv/overhead", None)
        charts = self._rates([name for name in rates if name in read], read)
        for name in (name for name in [*own, *logged, *system] if name in read):
            title, unit, scale = _declared(name)
            figure = series_figures.small(
                read[name],
                title=title,
                unit=unit,
                scale=scale if self._look.scale == "auto" else self._look.scale,
                marks=self._lines,
                smoothing=self._look.smoothing or 0.0,
            )
            hint = "" if unit in ("s", "fraction") else unit  # those stand at the axis
            chart = _chart(name, title, self._over(figure), hint)
            charts.append(chart | {"group": "system"} if name in system else chart)
        return charts + self._logged_histograms()

    def _has_settled(self, step_time: Series | None) -> bool:
        """Whether the training is long enough for what it says of its share of the time."""
        if step_time is None or not np.isfinite(step_time.mean).any():
            return False
        seconds = self._end * float(np.nanmean(step_time.mean))
        return self._end >= SETTLED_STEPS and seconds >= SETTLED_S

    def _rates(self, rates: list[str], read: dict[str, Any]) -> list[Chart]:
        if not rates:
            return []
        others = {name: read[name] for name in rates[1:]}
        figure = series_figures.small(
            read[rates[0]], title="Learning rate", scale="log", marks=self._lines, others=others
        )
        if others:
            figure["layout"]["meta"]["keys"] = [
                {"name": name.removeprefix("tv/lr/"), "color": color}
                for name, color in zip(rates, series_figures.COLORS, strict=False)
            ]
        return [_chart("tv/lr", "Learning rate", self._over(figure))]

    def _logged_histograms(self) -> list[Chart]:
        """A chart of each histogram that the user's own code logs."""
        layouts = self._store.layouts(self._run.id)
        names = sorted(row.name for item in layouts if item.kind == "logged" for row in item.rows)
        return [
            _chart(f"histogram/{name}", name, self._histogram("logged", name, name, 200))
            for name in names[:MAX_HISTOGRAMS]
        ]

    def layer(self, line: Line) -> list[Chart]:
        """The small multiples of a layer."""
        look, run = self._look, self._run.id
        row = self._store.row(
            run, "activation", line.name, start=look.start, stop=look.stop, points=SMALL_POINTS
        )
        parameters = {
            name: self._store.row(
                run, "parameter", name, start=look.start, stop=look.stop, points=SMALL_POINTS
            )
            for name in line.parameters[:6]
        }

        def of(key: str) -> dict[str, Any]:
            return {_own(name, line.name): p[key] for name, p in parameters.items() if key in p}

        figures: list[tuple[str, str, str, Figure]] = []
        if parameters:
            hint = "‖ΔW‖ / ‖W‖ of a step; green: healthy"
            ratio = layer_figures.update_ratio(of("update_ratio"), self._lines)
            figures.append(("update_ratio", "Update ratio", hint, ratio))
        if row:
            activation = layer_figures.activation(row, self._lines)
            spread = layer_figures.spread(row.get("std"), self._lines)
            shares = layer_figures.shares(row, self._lines)
            hint = "dead: zero on every sample; green: healthy"
            figures += [
                ("activation", "Activations", "mean, grey: ± std, dots: abs-max", activation),
                ("std", "Activation std", "green: 10 times around its own levels", spread),
                ("shares", "Zero and dead share", hint, shares),
            ]
        if parameters:
            gradient = layer_figures.lines(of("grad_rms"), self._lines, logarithmic=True)
            weight = layer_figures.lines(of("weight_rms"), self._lines)
            figures.append(("grad_rms", "Gradient RMS", "as the optimizer gets it", gradient))
            figures.append(("weight_rms", "Weight RMS", "", weight))
        return [_chart(key, title, self._over(made), hint) for key, title, hint, made in figures]

    def histogram(self, line: Line, kind: HistogramKind, form: Form = "heatmap") -> Figure:
        """Histograms over time of a layer's first weight, its gradient, or the layer's output."""
        first = next(iter(line.weights or line.parameters), None)
        owner = line.name if kind == "activation" else first
        if owner is None:
            return empty("This layer has no parameters.")
        return self._histogram(kind, owner, HISTOGRAMS[kind], 300, form)

    def _histogram(
        self, kind: HistogramKind, owner: str, what: str, times: int, form: Form = "heatmap"
    ) -> Figure:
        look = self._look
        read = self._store.histograms(
            self._run.id, kind, owner, start=look.start, stop=look.stop, times=times
        )
        match form:
            case "ridgeline":
                return distribution.ridgeline(read.steps, read.counts, what=what)
            case "quantiles":
                made = distribution.quantiles(read.steps, read.counts, self._lines, what=what)
            case _:
                made = distribution.histogram(
                    read.steps, read.counts, self._lines, what=what, stop=self._stop
                )
        return self._over(made)

    def _read(self, names: list[str], points: int) -> dict[str, Any]:
        look = self._look
        if not names:
            return {}
        return self._store.series(
            self._run.id, names, start=look.start, stop=look.stop, points=points
        )

    def _over(self, figure: Figure) -> Figure:
        """Give a figure the step range that all charts of the page share."""
        if figure["data"]:
            last = max(self._end - 1, 1)
            stop = last if self._look.stop is None else self._look.stop
            figure["layout"]["xaxis"]["range"] = [self._look.start or 0, stop]
        return figure


def _declared(name: str) -> tuple[str, str, Scale]:
    """Title, unit and scale of a scalar. One of the hooks' own may end in the index of a device."""
    base, _, index = name.rpartition("/")
    column = _DECLARED.get(name) or (_DECLARED.get(base) if index.isdigit() else None)
    if column is None:
        return name, "", "log"
    return column.title + (f" {index}" if column.key == base else ""), column.unit, column.scale


def _system_place(name: str) -> tuple[int, str]:
    key = name if name in _SYSTEM_ORDER else name.rpartition("/")[0]
    return _SYSTEM_ORDER.index(key) if key in _SYSTEM_ORDER else len(_SYSTEM_ORDER), name


def _chart(key: str, title: str, figure: Figure, hint: str = "") -> Chart:
    return {"key": key, "title": title, "hint": hint, **figure}


def _own(parameter: str, layer_name: str) -> str:
    """A parameter's name within its layer: "fc1.weight" of "fc1" is "weight"."""
    return parameter.removeprefix(f"{layer_name}.") if layer_name else parameter
