"""The list of runs as data: a card of each run, made once for each of its versions."""

import threading
import time
from typing import Any

import numpy as np
from flask import Blueprint, Response

from trainvitals.app.figures.sparkline import spark
from trainvitals.app.rules.finding import SEVERITIES
from trainvitals.app.store import Store
from trainvitals.app.store.types import SHELVES, Card, Run, Series, Shelf
from trainvitals.app.web import runview
from trainvitals.app.web.db import get_framed, get_store
from trainvitals.app.web.params import choice, whole
from trainvitals.app.web.serialize import dumps, number
from trainvitals.app.web.verdict import Verdict

bp = Blueprint("overview", __name__)

MAX_RUNS = 10_000
MAX_MADE = 200
"""Cards that one answer may make; the rest comes with the next one."""
BUDGET_S = 0.3
"""How long it may take for them."""
ANEW_S = 0.9
"""How old the card of a run that goes on is at least before it is made anew, seconds."""
LIVE_S = 5.0
"""A run that was heard of in this time is live."""
MAX_FIELDS = 40
"""Metrics, and configuration values, of a card: what the list is searched by."""
MAX_TEXT = 120
LATE_STEPS = 200
"""Steps that tell how fast a run is, or the last point's, where that has more."""
OVERLAP_S = 2.0
"""Cards made so long before the last answer come again: another process may have been writing them."""
_making = threading.Lock()
_DELETED = Verdict("wait", "Deleted.", "What was recorded of it can be seen once it is restored.")


@bp.get("/api/v1/overview")
def overview() -> Response:
    """What the list of runs shows of a `shelf`: all, or what changed since `since`: `now` of an earlier answer (ms).

    `heard` holds when runs were heard of last, `total` how many there are; `complete` is false while some cards are
    still to be made.
    """
    since = whole("since", 0, 0, 2**53) / 1e3 - OVERLAP_S
    shelf = choice("shelf", SHELVES, "active")
    store, now = get_store(), time.time()
    complete = _refresh(store, now, shelf)
    cards, heard, total = store.cards(since, MAX_RUNS, shelf)
    head = dumps({"now": int(now * 1e3), "heard": heard, "total": total, "complete": complete})
    body = head[:-1] + b',"runs":[' + b",".join(card.body for card in cards) + b"]}"
    return Response(body, mimetype="application/json")


def _refresh(store: Store, now: float, shelf: Shelf) -> bool:
    """Make the cards that are missing, as far as the time allows; whether that was all of them."""
    begin, made = time.monotonic(), []
    with _making:  # who asks meanwhile finds them made
        missing = store.missing_cards(MAX_MADE, shelf, now - ANEW_S)
        for run in missing:
            made.append(_card(store, run, now))
            if time.monotonic() - begin > BUDGET_S:
                break
        if made:
            store.put_cards(made, now)
    return len(made) == len(missing) < MAX_MADE


def _card(store: Store, run: Run, now: float) -> Card:
    """The card of a run as it is; of a live one as its page shows it, which has read it already."""
    shown = get_framed().run(run.id) if now - run.last_seen < LIVE_S else None
    return card(store, run, now) if shown is None else card(get_framed(), shown, now)


def card(store: Store, run: Run, now: float) -> Card:
    """The card of a run as it is; of a deleted one, what can still be told of it."""
    shown = runview.view(store, run, now)
    judged = shown.verdict if run.deleted is None else _DELETED
    names = store.scalar_names(run.id)
    loss = runview.training_loss(names)
    read = runview.outline(store, run, names)
    last = {name: float(series.last[-1]) for name, series in read.items()}
    others = [name for name in runview.logged(names) if name in last and name != loss]
    firing = [item for item in shown.roots if item.state == "firing" and item.severity != "info"]
    curve = spark(_curve(read.get(loss)) if loss else [])
    body = {
        "id": run.id,
        "project": run.project,
        "name": run.name,
        "tags": run.tags[:20],
        "created": run.created,
        "seen": run.last_seen,
        "reported": run.status_reported,
        "step": runview.last_step(run),
        "attempts": len(run.attempts),
        "level": judged.level,
        "state": judged.state,
        "sentence": judged.sentence[:300],
        "findings": {s: sum(item.severity == s for item in firing) for s in SEVERITIES[1:]},
        "rules": sorted({item.rule for item in firing}),
        "layers": [name[:MAX_TEXT] for item in firing for name in item.layers[:2]][:6],
        "spark": None if curve is None else {"path": curve.path, "broken": curve.broken},
        "loss": number(last.get(loss) if loss else None),
        "rate": _rate(run, read.get(runview.STEP_TIME)),
        "metrics": {name: number(last[name]) for name in others[:MAX_FIELDS]},
        "config": _flat(run.config),
    }
    return Card(run=run.id, version=run.version, body=dumps(body))


def _curve(loss: Series | None) -> list[float]:
    """The training loss for a sparkline."""
    if loss is None:
        return []
    curve: list[float] = np.where(np.asarray(loss.nonfinite) > 0, np.nan, loss.mean).tolist()
    return curve


def _rate(run: Run, step_time: Series | None) -> float | None:
    """Steps per second of late: by the step time that was measured, else over the whole run; None if unknown."""
    step = runview.last_step(run)
    if step_time is not None:
        late = step_time.mean[
            step_time.steps > min(step - LATE_STEPS, int(step_time.steps[-1]) - 1)
        ]
        late = late[np.isfinite(late) & (late > 0)]
        if len(late):
            return float(1 / late.mean())
    lasted = run.last_seen - run.created
    return step / lasted if step > 0 and lasted > 1 else None


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values of a configuration by dotted names, the first `MAX_FIELDS` of them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"[:MAX_TEXT]
        if isinstance(value, dict):
            found |= _flat(value, f"{name}.")
        elif isinstance(value, bool | int | float) or value is None:
            found[name] = value
        else:
            found[name] = str(value)[:MAX_TEXT]
        if len(found) >= MAX_FIELDS:
            break
    return dict(list(found.items())[:MAX_FIELDS])
