"""The policy file of a server: read again when it changes, and never a reason to stop.

While the file is wrong the last good text stays in force. It is kept in a file beside the database, so that it outlives
the evaluator that has read it, and so that pages and API can tell what is in force.
"""

import logging
import os
from pathlib import Path

import msgspec

from trainvitals.app.rules import RULES
from trainvitals.app.rules.policy import DEFAULTS, Policy
from trainvitals.app.rules.policytext import PolicyError, Problem, parse

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says."""

    path: str
    exists: bool
    text: str = ""
    problems: list[Problem] = []
    policy: Policy = DEFAULTS
    """That of the text; the defaults when there is no file, or a wrong one."""


def read(path: Path) -> Reading:
    """Read a policy file. Never raises for what it holds."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Reading(path=name, exists=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        problem = Problem(0, "", f"The file can't be read: {reason}.")
        return Reading(path=name, exists=True, problems=[problem])
    try:
        return Reading(path=name, exists=True, text=text, policy=parse(text, RULES))
    except PolicyError as error:
        return Reading(path=name, exists=True, text=text, problems=error.problems)


def kept_beside(database: Path | str) -> Path:
    """Where the last good text of a database's policy is."""
    return Path(f"{database}.policy.toml")


def in_force(reading: Reading, database: Path | str) -> Policy:
    """The policy that counts: that of the file, or the last good one while the file is wrong."""
    return read(kept_beside(database)).policy if reading.problems else reading.policy


class PolicyFile:
    """A policy file that is followed."""

    def __init__(self, path: Path, database: Path | str) -> None:
        self._path = path
        self._database = database
        self._stamp: Stamp | str | None = "unread"
        self._policy = DEFAULTS

    def current(self) -> Policy:
        """The policy that is in force now. A change of the file is seen at once; a wrong one is logged, and waits."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._read()
        return self._policy

    def _read(self) -> None:
        reading = read(self._path)
        before, self._policy = self._policy, in_force(reading, self._database)
        if reading.problems:
            said = "; ".join(map(str, reading.problems[:5]))
            logger.error("The policy %s is wrong, the last good one stays: %s", self._path, said)
            return
        if self._policy != before:
            logger.warning("The policy of %s is in force.", self._path)
        try:
            _keep(kept_beside(self._database), reading)
        except OSError as error:
            logger.warning("The policy could not be kept beside the database: %s.", error.strerror)


def _keep(kept: Path, reading: Reading) -> None:
    if not reading.exists:
        kept.unlink(missing_ok=True)
        return
    fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
    fresh.write_text(reading.text, encoding="utf-8")
    fresh.replace(kept)


def _stamp(path: Path) -> Stamp | None:
    """Changes with the file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
