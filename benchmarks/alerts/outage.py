"""An hour in which no receiver answers, on a simulated clock: real outbox, real channels, real receivers."""

import tempfile
from pathlib import Path

from benchmarks.alerts import sick
from benchmarks.alerts.kills import count
from benchmarks.alerts.receivers import Receivers
from trainvitals.app.alerts import channels_from
from trainvitals.app.alerts.dispatch import Dispatcher
from trainvitals.app.evaluator import Evaluator
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store

BEGIN = 1.8e9
HOUR_S = 3600


def measure(runs: int, *, outage_s: int = HOUR_S) -> dict[str, object]:
    """What arrives of the alerts of `runs` runs that fall sick while nobody answers, and how long after it."""
    with tempfile.TemporaryDirectory() as folder, Receivers() as receivers:
        path = Path(folder) / "alerts.db"
        settings = Settings.from_env(environ=receivers.environment, database=path)
        store = Store.open(path)
        evaluator = Evaluator(path, Settings(database=path))
        dispatcher = Dispatcher(store, channels_from(settings), "http://127.0.0.1:7070")
        receivers.away = True
        names = [f"run-{number:03}" for number in range(runs)]
        last: dict[str, float] = {}
        for second in range(outage_s + 900):
            now = BEGIN + second
            if second % (outage_s // runs) == 0 and second // (outage_s // runs) < runs:
                store.append(sick.batch(names[second // (outage_s // runs)], now), now)
                while evaluator.evaluate(now):
                    pass
            if second == outage_s:
                receivers.away = False
            before = {channel: len(got) for channel, got in receivers.got.items()}
            dispatcher.tick(now)
            for channel, got in receivers.got.items():
                if len(got) > before.get(channel, 0):
                    last[channel] = second - outage_s
        evaluator.close()
        store.close()
        return {
            "outage, s": outage_s,
            "runs": runs,
            **{
                channel: count(got, set(names)) | {"last one after, s": last[channel]}
                for channel, got in receivers.got.items()
            },
        }
