"""Feeds a run's records to the rules, and settles what they find."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from trainvitals.app.rules import RULES
from trainvitals.app.rules.arbitration import arbitrate
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, Group, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.hooks.wire.records import End, Event, Layout, Record, Scalars, Start, Step
from trainvitals.hooks.wire.scalars import expand

VERSION: Final = 1
"""Of the saved state. A state of another version is refused, and the run is judged anew."""


class StreamLike(Protocol):
    """Where a record came from."""

    @property
    def attempt(self) -> str: ...
    @property
    def rank(self) -> int: ...


class StateError(ValueError):
    """A saved state of another version or other rules, or a damaged one."""


class _Saved(msgspec.Struct):
    version: int
    context: Context
    rules: dict[str, msgspec.Raw]


class Engine:
    """The rules at work on one run.

    Statistics are judged for rank 0, events of every rank. How the records are cut into batches, and
    how the streams of several ranks are interleaved, changes nothing; each stream must be fed in its
    own order, and an attempt before the next one. What an overtaken attempt still sends counts for
    its events only.
    """

    def __init__(self, rules: Sequence[type[Rule]] = RULES) -> None:
        self._rules = [rule() for rule in rules]
        self._context = Context()
        self._groups: dict[int, Group] = {}

    def feed(self, stream: StreamLike, record: Record) -> None:
        """Take the next record of `stream`."""
        context = self._context
        if isinstance(record, Event):
            for rule in self._rules:
                rule.on_event(context, (stream.attempt, record.step, stream.rank), record)
            return
        if stream.rank != 0 or stream.attempt < context.attempt:
            return
        context.attempt = stream.attempt
        match record:
            case Start():
                context.start(record)
                self._groups.clear()
                context.layouts.clear()
            case Layout():
                context.layout(record)
                self._groups[record.group] = Group(record)
            case Step():
                self._step(record)
            case Scalars():
                for step in expand(record):
                    self.feed(stream, step)
            case End():
                context.end(record)

    def _step(self, record: Step) -> None:
        loss = self._context.step(record)
        tables = [
            Table(self._groups[sample.group], sample.values)
            for sample in record.samples
            if sample.group in self._groups
        ]
        view = StepView(
            record,
            loss,
            [table for table in tables if table.group.layout.kind == "activation"],
            [table for table in tables if table.group.layout.kind == "parameter"],
        )
        for rule in self._rules:
            rule.on_step(self._context, view)

    def findings(self) -> list[Finding]:
        """All findings, each either a root or under one; most severe first, then earliest."""
        return arbitrate(
            [
                msgspec.structs.replace(found, evidence={**found.evidence, "unless": rule.unless})
                for rule in self._rules
                for found in rule.findings(self._context)
            ]
        )

    def states(self) -> list[RuleState]:
        """Where each rule stands, in the order of the rules."""
        return [rule.state(self._context) for rule in self._rules]

    def save(self) -> bytes:
        """All that `load` needs to go on from here."""
        rules = {rule.id: msgspec.Raw(msgspec.msgpack.encode(rule)) for rule in self._rules}
        return msgspec.msgpack.encode(_Saved(VERSION, self._context, rules))

    @classmethod
    def load(cls, data: bytes, rules: Sequence[type[Rule]] = RULES) -> "Engine":
        """The engine that `save` described. Raises StateError."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
            if saved.version != VERSION or set(saved.rules) != {rule.id for rule in rules}:
                raise StateError("The saved state is of another version of the rules.")
            engine = cls(())
            engine._rules = [
                msgspec.msgpack.decode(saved.rules[rule.id], type=rule) for rule in rules
            ]
        except msgspec.DecodeError as error:
            raise StateError(f"The saved state cannot be read: {error}.") from error
        engine._context = saved.context
        engine._groups = {number: Group(layout) for number, layout in saved.context.layouts.items()}
        return engine
