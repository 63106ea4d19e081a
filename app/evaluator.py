"""The evaluator: reads new records of every run, judges them, keeps the findings, sends the alerts.

One process beside the web workers (`python -m trainvitals.app.evaluator`). Several may run on one
database: each run is leased to one of them at a time. State, cursor, findings and alerts of a run are
committed together, so that a crash repeats nothing and skips nothing.
"""

import argparse
import logging
import os
import signal
import threading
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Final

from trainvitals.app.alerts import channels_from
from trainvitals.app.alerts.dispatch import Courier, Dispatcher
from trainvitals.app.alerts.plan import plan
from trainvitals.app.alerts.watchman import Watchman
from trainvitals.app.garbage import collect_seldom
from trainvitals.app.janitor import Janitor
from trainvitals.app.policyfile import PolicyFile
from trainvitals.app.rules.engine import Engine, StateError, states_of
from trainvitals.app.settings import Settings
from trainvitals.app.store import Conflict, NotFound, Store, StoreError
from trainvitals.app.store.types import Evaluation

logger = logging.getLogger(__name__)

LEASE_S: Final = 30.0
"""Longer than any one batch of records takes; a crashed evaluator's runs wait this long."""
BATCH: Final = 2000
"""Records judged between two commits of a run."""
IDLE_S: Final = 0.3
"""Pause when there was little to judge: what came meanwhile is committed together."""
SIGN_S: Final = 5.0
"""How often it says that it is alive."""
TROUBLE_S: Final = 5.0
"""Pause after an error of the database, or of a rule."""
NICE: Final = 10
"""How far it stands back for the web workers: records that wait to be taken in go before a judgement on them."""
CACHED: Final = 100
"""Runs whose engines stay in memory. To load one takes longer than to judge half a second of its run."""


class Evaluator:
    """Judges the runs of one database, and delivers their alerts."""

    def __init__(
        self, store_path: Path | str, settings: Settings, stop: threading.Event | None = None
    ) -> None:
        """stop: what ends the judging when it is set, after the record that is being judged."""
        self._stop = stop or threading.Event()
        self._store = Store.open(store_path)
        self._path = store_path
        self._settings = settings
        self._owner = uuid.uuid4().hex
        self._policy_file = PolicyFile(settings.rules, store_path)
        self._policy = self._policy_file.current()
        self._engines: OrderedDict[str, tuple[dict[str, int], Engine]] = OrderedDict()
        self._anew: dict[str, tuple[dict[str, int], Engine]] = {}
        """Runs that are judged from their start again, as far as that is; what was found of them stays meanwhile."""
        self._dispatcher = Dispatcher(
            self._store, channels_from(settings), link_base=settings.link_base
        )
        self._watchman = Watchman(self._store, time.time())
        self._skip_until: dict[str, float] = {}
        self._unchecked = self._store.evaluated()
        """Runs whose saved state may be of an earlier release; the newest last."""

    def close(self) -> None:
        """Leave the runs to whoever comes next, and close the database."""
        try:
            self._store.release(self._owner)
        except StoreError:
            logger.warning("The leases stay until their time is up.", exc_info=True)
        self._store.close()

    def tick(self, now: float) -> int:
        """Judge what is new at `now` (Unix seconds), then send what is due; the records judged."""
        judged = self.evaluate(now)
        self._dispatcher.tick(now)
        return judged

    def evaluate(self, now: float) -> int:
        """Judge up to `BATCH` new records of every run that has any; how many there were."""
        self._policy = self._policy_file.current()
        judged = 0
        for run in self._store.claim(self._owner, LEASE_S, now):
            if self._stop.is_set():
                break
            if self._skip_until.get(run, 0.0) > now:
                continue
            try:
                judged += self._judge(run, now)
            except (Conflict, NotFound):  # another evaluator took over, or the run was deleted
                self._forget(run)
            except StoreError:
                raise
            except Exception:  # whatever the records of one run bring about, the others' are judged
                logger.exception("Run %s could not be judged; the next try is in 60 s.", run)
                self._forget(run)
                self._skip_until[run] = now + 60.0
        if judged < BATCH and self._unchecked:
            self._check(self._unchecked.pop())
        return judged

    def _check(self, run: str) -> None:
        """Let a run be judged anew whose state cannot be read: one that has ended would stay "not judged yet"."""
        state = self._store.evaluation(run).state
        try:
            if state is not None:
                states_of(state)
        except StateError:
            self._store.judge_again(run)

    def _judge(self, run: str, now: float) -> int:
        store = self._store
        stored = store.evaluation(run)
        cursor, engine = self._resume(run, stored)
        records = store.replay(run, cursor, BATCH)
        cursor = dict(cursor)
        working = set(engine.broken)
        for stream, record in records:
            if self._stop.is_set():
                break  # what is judged is kept, and the rest is new to the next evaluator
            engine.feed(stream, record)
            cursor[f"{stream.attempt}/{stream.rank}"] = record.seq + 1
        for rule in engine.broken.keys() - working:
            logger.error("Rule %s failed in run %s: %s", rule, run, engine.broken[rule])
        behind = any(cursor.get(stream, 0) < after for stream, after in stored.cursor.items())
        if records and behind:
            self._anew[run] = (cursor, engine)
            return len(records)
        self._anew.pop(run, None)
        before, after = store.findings(run), engine.findings()
        # What is said anew of records that were judged before is no news.
        alerts = plan(run, before, after, now) if cursor != stored.cursor else []
        store.commit_evaluation(run, self._owner, cursor, engine.save(), after, alerts, now)
        self._engines[run] = (cursor, engine)
        self._engines.move_to_end(run)
        while len(self._engines) > CACHED:
            self._engines.popitem(last=False)
        return len(records)

    def _resume(self, run: str, stored: Evaluation) -> tuple[dict[str, int], Engine]:
        """The engine as it was at the last commit; one at the run's start when there is none under this policy."""
        again = self._anew.get(run)
        if again is not None and again[1].policy == self._policy:
            return again
        cached = self._engines.pop(run, None)
        if cached is None or cached[0] != stored.cursor:
            cached = self._load(run, stored)
        if cached[1].policy == self._policy:
            return cached
        logger.warning("Run %s is judged anew from its start: the policy has changed.", run)
        return {}, Engine(policy=self._policy)

    def _load(self, run: str, stored: Evaluation) -> tuple[dict[str, int], Engine]:
        if stored.state is not None:
            try:
                return stored.cursor, Engine.load(stored.state)
            except StateError as error:
                logger.warning("Run %s is judged anew from its start: %s", run, error)
        return {}, Engine(policy=self._policy)

    def _forget(self, run: str) -> None:
        self._engines.pop(run, None)
        self._anew.pop(run, None)

    def run_forever(self) -> None:
        """Judge, deliver and tidy up until it is to stop. A slow channel delays no judgement and no other channel."""
        stop = self._stop
        janitor = Janitor(self._store, self._settings.policy)
        threads = [
            threading.Thread(target=_deliver, args=(courier, stop), name=f"delivery-{courier.name}")
            for courier in self._dispatcher.couriers
        ]
        threads.append(threading.Thread(target=janitor.run_forever, args=(stop,), name="retention"))
        for thread in threads:
            thread.start()
        signed = 0.0
        try:
            while not stop.is_set():
                try:
                    if time.time() - signed > SIGN_S:
                        signed = time.time()
                        self._store.sign("evaluator", signed)
                    judged = self.evaluate(time.time())
                    self._watchman.tick(time.time())
                except StoreError:
                    logger.exception("The database could not be read or written.")
                    stop.wait(TROUBLE_S)
                    continue
                if judged < BATCH:
                    stop.wait(IDLE_S)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _deliver(courier: Courier, stop: threading.Event) -> None:
    """Send what is due on one channel until `stop` is set: no channel waits for another."""
    while not stop.wait(IDLE_S):
        try:
            courier.tick(time.time())
        except (
            Exception
        ):  # a channel's library may raise anything, and this thread is the only one to deliver
            logger.exception("Alerts could not be delivered to %s; trying again.", courier.name)
            stop.wait(TROUBLE_S)


def main() -> None:
    """Evaluate until SIGTERM or SIGINT, or until the process `--parent` is gone."""
    parser = argparse.ArgumentParser(prog="python -m trainvitals.app.evaluator")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--parent", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    os.nice(NICE)
    collect_seldom()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.parent:
        threading.Thread(target=_follow, args=(arguments.parent, stop), daemon=True).start()
    evaluator = Evaluator(arguments.database, Settings.from_env(database=arguments.database), stop)
    try:
        evaluator.run_forever()
    finally:
        evaluator.close()


def _follow(parent: int, stop: threading.Event) -> None:
    """Set `stop` once this process is no longer a child of `parent`."""
    while os.getppid() == parent:
        if stop.wait(0.5):
            return
    stop.set()


if __name__ == "__main__":
    main()
