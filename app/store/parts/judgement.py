"""What the rules found in runs, and what people said of it."""

from collections.abc import Mapping, Sequence

from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import findings, handling
from trainvitals.app.store.parts.base import Part
from trainvitals.app.store.types import AlertRow, Evaluation, Handling


class Judgement(Part):
    """What the rules found in runs, and what people said of it."""

    def claim(self, owner: str, ttl_s: float, now: float) -> list[str]:
        """Lease to `owner` the runs with records that were not evaluated yet, and name them.

        A lease lasts until `commit_evaluation` or `release`, or `ttl_s` seconds from `now` (Unix seconds).
        """
        return findings.claim(self._database, owner, ttl_s, now)

    def release(self, owner: str) -> None:
        """Hand back whatever is leased to `owner`."""
        with self._database.write() as connection:
            findings.release(connection, owner)

    def evaluated(self) -> list[str]:
        """The runs that were evaluated so far, but for deleted ones; the newest last."""
        with self._database.read() as connection:
            return findings.evaluated(connection)

    def judge_again(self, run: str) -> None:
        """Let `claim` offer all records of a run once more; its last evaluation stays until the next commit."""
        with self._database.write() as connection:
            findings.judge_again(connection, run)

    def evaluation(self, run: str) -> Evaluation:
        """The last evaluation of a run."""
        with self._database.read() as connection:
            return findings.evaluation(connection, run)

    def commit_evaluation(
        self,
        run: str,
        owner: str,
        cursor: Mapping[str, int],
        state: bytes | None,
        findings_now: Sequence[Finding],
        alerts: Sequence[AlertRow],
        now: float,
    ) -> None:
        """Keep an evaluation, its findings in place of the earlier ones and its alerts, and hand back the lease.

        An alert whose id is known already is not added. Raises Conflict when the lease was lost, NotFound when the run
        was deleted; then nothing is kept.
        """
        with self._database.write() as connection:
            findings.commit(connection, run, owner, cursor, state, findings_now, alerts)

    def findings(self, run: str) -> list[Finding]:
        """What was found in a run, in the order in which it was committed."""
        with self._database.read() as connection:
            return findings.findings(connection, run)

    def finding_counts(self) -> dict[str, dict[str, int]]:
        """How many root findings are firing, by run and severity; runs without any are left out."""
        with self._database.read() as connection:
            return findings.counts(connection)

    def handling(self, run: str) -> dict[str, Handling]:
        """What people said of the findings of a run, by the findings' keys."""
        with self._database.read() as connection:
            return handling.handling(connection, run)

    def acknowledge(self, run: str, key: str, first_step: int, when: float | None) -> None:
        """Note that someone has seen the finding `key` with that onset; None: nobody has. Raises NotFound."""
        with self._database.write() as connection:
            handling.acknowledge(connection, run, key, first_step, when)

    def mute(self, run: str, key: str, until: float | None) -> None:
        """Send nothing about the finding `key` before `until` (Unix seconds, None: at once). Raises NotFound."""
        with self._database.write() as connection:
            handling.mute(connection, run, key, until)
