"""The poll for what is new of a run: an open page sends tokens of what it has, and gets the rest.

Texts, charts and map are made once for each version of a run, whoever asks, and an answer is cut out of them. Pages of
one run are told to ask at the same moment, so that what is new then serves them all.
"""

import itertools
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flask import Blueprint, Response, render_template, request

from trainvitals.app.figures.cells import Line
from trainvitals.app.rules.finding import RuleStateName
from trainvitals.app.store import Store
from trainvitals.app.store.types import Run
from trainvitals.app.web import deltas, runview
from trainvitals.app.web.charts import FORMS, HISTOGRAMS, Chart, Charts, Form
from trainvitals.app.web.compression import Rest
from trainvitals.app.web.db import get_store, show_frames
from trainvitals.app.web.figures_api import known_line, look_of_request, map_news
from trainvitals.app.web.frames import IDLE_S
from trainvitals.app.web.memory import Memory
from trainvitals.app.web.params import choice, known_run, optional_whole
from trainvitals.app.web.serialize import dumps

bp = Blueprint("live", __name__)

EVERY_MS: Final = 1000
"""Between two questions of a page."""
SOONEST_MS: Final = 300
EVIDENCE_S: Final = 1.5
"""How often the evidence of findings that stay is brought, seconds."""
REASONS_S: Final = 10.0
"""How often the rules' reasons are brought, seconds. They count samples, so that they change with every record."""
REFRESH_BYTES: Final = 14_000
"""What charts and map take of one answer to a page that has them, compressed, beside texts and small patches. Once a
run is twice as long all of its buckets are wider, and all curves come anew: one after another, each whole. Those that
wait get their newest points, so that no point does."""
PATCH_BYTES: Final = 4_000
"""Up to which JSON of a chart is a patch, which never waits."""
_APART: Final = (5**0.5 - 1) / 2
"""Multiples of it, as parts of a second, keep apart however many there are."""
MAX_DRAWN: Final = 64
"""Runs' charts that a worker keeps, under the looks that were asked for: about 300 KB each."""

_MAP: Final = ""
"""The map among the charts' keys."""

_drawn = Memory(MAX_DRAWN)
_texts = Memory(MAX_DRAWN)
_answers = Memory(MAX_DRAWN)
"""Pages that were told the same ask the same."""


@bp.get("/api/v1/runs/<run_id>/live")
def news_of_run(run_id: str) -> Response:
    """Whether the run changed since `version`; if so what is new of its texts, charts and map.

    `known` names, as often as wanted, what the page has and its token ("loss~TOKEN", "findings~TOKEN"); of
    `charts` ("run", "layer") all are answered, those that are not known whole. `layer` names the layer. `map` is the
    token of the map. Everything is made once for each version of the run; an answer is cut out of it. `more` says that
    some of it has to be asked for again, without `version`.
    """
    show_frames()
    run = known_run(run_id)
    known = optional_whole("version")
    store = get_store()
    shown = runview.view(store, run, time.time())
    rest = _answers.get(
        store,
        run,
        (shown.status, request.full_path),
        lambda: Rest.of(b"," + dumps(_answer(store, run, shown, known))[1:]),
    )
    # A sign of life changes the pill alone.
    pill = render_template("_pill.html", view=shown)
    head = dumps({"again_ms": again_ms(run_id, time.time()), "pill": pill})
    return rest.behind(head[:-1], "application/json")


def _answer(store: Store, run: Run, shown: runview.View, known: int | None) -> dict[str, Any]:
    """What is the same for all pages that ask the same of this version of the run."""
    answer: dict[str, Any] = {
        "version": run.version,
        "status": shown.status,
        "last_step": run.last_step,
        "changed": known is None or known != run.version,
    }
    if answer["changed"]:
        held = dict(item.rpartition("~")[::2] for item in request.args.getlist("known"))
        texts = _texts_of(store, run, shown)
        tokens = {name: f"{zlib.crc32(text.encode()):x}" for name, text in texts.items()}
        answer |= {name: text for name, text in texts.items() if held.get(name) != tokens[name]}
        answer |= {"texts": tokens, "title": shown.verdict.state}
        which = choice("charts", ("none", "run", "layer"), "none")
        charts = {} if which == "none" else _charts_of(store, run, which)
        picture: dict[str, Any] | None = None
        news: dict[str, object] = {
            key: new for key, of in charts.items() if (new := _news(of, held.get(key)))
        }
        if "map" in request.args:
            picture = map_news(run, request.args["map"])
            news[_MAP] = picture
        brought = {key: msgspec.Raw(dumps(new)) for key, new in news.items()}
        waiting: set[str] = set()
        if charts.keys() & held.keys():
            waiting = _waiting(brought, run.version)
        for key in waiting:
            first = charts[key].ahead(held[key]) if key in charts and key in held else None
            brought[key] = msgspec.Raw(dumps(first))
            if first is None or len(brought[key]) > PATCH_BYTES:
                del brought[key]
        answer["more"] = bool(waiting or (picture and picture.get("part")))
        if "map" in request.args:
            answer["map"] = brought.pop(_MAP, None)
        if which != "none":
            answer["charts"] = brought
    return answer


def _waiting(news: Mapping[str, msgspec.Raw], version: int) -> set[str]:
    """What of `news` does not fit into one answer, which has at least one that is large.

    The loss goes first and then the map; the others have another place in another version.
    """

    def place(key: str) -> tuple[bool, bool, int]:
        return key != "loss", key != _MAP, zlib.crc32(f"{version} {key}".encode())

    waiting, room = set(), REFRESH_BYTES
    for key in sorted(news, key=place):
        if len(news[key]) > PATCH_BYTES:
            size = len(zlib.compress(news[key], 1))
            if size > room < REFRESH_BYTES:
                waiting.add(key)
            else:
                room -= size
    return waiting


def again_ms(run_id: str, now: float) -> int:
    """In how many milliseconds from `now` (Unix seconds) pages of the run ask again: all of them at one moment."""
    left = (_moments.of(run_id, now) - int(now * 1e3)) % EVERY_MS
    return left if left >= SOONEST_MS else left + EVERY_MS


class _Moments:
    """At which moment of a second pages of each run ask, milliseconds: those of different runs far from each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, tuple[int, float]] = {}
        """The number of each run that is followed, and when it was asked for."""

    def of(self, run_id: str, now: float) -> int:
        """That of a run, which stays as long as the run is followed."""
        with self._lock:
            if run_id not in self._runs:
                for other, (_, asked) in list(self._runs.items()):
                    if asked < now - IDLE_S:
                        del self._runs[other]
                taken = {number for number, _ in self._runs.values()}
                number = next(number for number in itertools.count() if number not in taken)
            else:
                number, _ = self._runs[run_id]
            self._runs[run_id] = number, now
        return int(number * _APART * EVERY_MS) % EVERY_MS


_moments = _Moments()


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a page, as HTML by name, what they were made from, and when by the monotonic clock."""

    texts: dict[str, str]
    states: list[RuleStateName]
    """Of the rules, without their reasons."""
    made: float
    """When "checked" was."""
    found: tuple[object, ...]
    """Of the findings, without their evidence, and what people said of them."""
    written: float
    """When "findings" were."""


def _texts_of(store: Store, run: Run, shown: runview.View) -> dict[str, str]:
    """The texts of the page, by name."""

    def told(last: _Texts | None) -> _Texts:
        now = time.monotonic()
        facts = runview.facts(store, run, store.scalar_names(run.id))
        texts = {"verdict": render_template("_verdict.html", view=shown, facts=facts)}
        found = [(item.key, item.state, item.severity, item.cause) for item in shown.findings]
        found_now = (found, shown.said)
        states = [state.state for state in shown.states]
        written = made = now
        if shown.status != "running":  # what is told last stays
            last = None
        if last and last.found == found_now and now - last.written < EVIDENCE_S:
            texts["findings"], written = last.texts["findings"], last.written
        else:
            texts["findings"] = render_template("_findings.html", view=shown)
        if last and last.states == states and now - last.made < REASONS_S:
            texts["checked"], made = last.texts["checked"], last.made
        else:
            texts["checked"] = render_template("_checked.html", view=shown)
        return _Texts(texts, states, made, found_now, written)

    return _texts.renew(store, run, shown.status, told).texts


def _charts_of(store: Store, run: Run, which: str) -> dict[str, deltas.Tracked]:
    """The charts that were asked for, by key."""
    look = look_of_request()
    if which == "run":
        return _drawn.get(store, run, look, lambda: _tracked(_run_charts(Charts(store, run, look))))
    line = known_line(run.id, request.args.get("layer", ""))
    form = choice("form", FORMS, "heatmap")
    return _drawn.get(
        store,
        run,
        (look, line.name, form),
        lambda: _tracked(_layer_charts(Charts(store, run, look), line, form)),
    )


def _run_charts(charts: Charts) -> list[Chart]:
    return [{"key": "loss", **charts.loss()}, *charts.metrics()]


def _layer_charts(charts: Charts, line: Line, form: Form) -> list[Chart]:
    kinds = [kind for kind in HISTOGRAMS if kind == "activation" or line.parameters]
    shapes = [{"key": f"histogram/{kind}", **charts.histogram(line, kind, form)} for kind in kinds]
    return [*charts.layer(line), *shapes]


def _tracked(charts: list[Chart]) -> dict[str, deltas.Tracked]:
    return {chart["key"]: deltas.Tracked(chart) for chart in charts}


def _news(chart: deltas.Tracked, known: str | None) -> dict[str, Any] | None:
    """What is new of a chart for a page that has `known` of it; None where that is the same."""
    return chart.whole if known is None else chart.since(known)
