"""Feeds a run's records to the rules, and settles what they find."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from trainvitals.app.rules import RULES
from trainvitals.app.rules.about import about
from trainvitals.app.rules.arbitration import arbitrate
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.blinkers import Blinkers
from trainvitals.app.rules.composite import CompositeRule
from trainvitals.app.rules.context import Context, Group, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.policy import DEFAULTS, Policy
from trainvitals.app.rules.thresholds import tuned
from trainvitals.hooks.wire.records import End, Event, Layout, Record, Scalars, Start, Step
from trainvitals.hooks.wire.scalars import expand

VERSION: Final = 2
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
    policy: Policy = DEFAULTS
    broken: dict[str, str] = {}
    states: list[RuleState] = []
    """For `states_of`: who only shows them need not load all the rest."""


class _Told(msgspec.Struct):
    """What `states_of` reads of `_Saved`."""

    version: int
    states: list[RuleState]


_told = msgspec.msgpack.Decoder(_Told)


class Engine:
    """The rules at work on one run, under a policy.

    Statistics are judged for rank 0, events and what ranks are compared by of every rank. How the
    records are cut into batches, and how the streams of several ranks are interleaved, changes
    nothing; each stream must be fed in its own order, and an attempt before the next one. What an
    overtaken attempt still sends counts for its events only. A rule that raises is told no more,
    and the others go on.
    """

    def __init__(self, rules: Sequence[type[Rule]] = RULES, policy: Policy = DEFAULTS) -> None:
        self.policy = policy
        self._known = list(rules)
        self._rules = [_under(policy, rule)() for rule in rules if policy.of(rule.id).enabled]
        self._blinkers = Blinkers(policy, self._rules)
        self._context = Context()
        self._groups: dict[int, Group] = {}
        self.broken: dict[str, str] = {}
        """What went wrong in each rule that raised."""

    def feed(self, stream: StreamLike, record: Record) -> None:
        """Take the next record of `stream`."""
        context = self._context
        context.time = max(context.time, record.time)
        if isinstance(record, Event):
            position = (stream.attempt, record.step, stream.rank)
            for rule in self._rules:
                if not self._blinkers.hides(rule, record):
                    self._tell(rule, record.step, rule.on_event, context, position, record)
            return
        if isinstance(record, Step) and record.observed is not None and record.observed.peer:
            position = (stream.attempt, record.step, stream.rank)
            for rule in self._rules:
                self._tell(rule, record.step, rule.on_peer, context, position, record.observed.peer)
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
                self._groups[record.group] = Group(record, self.policy.roles)
            case Step():
                self._step(_in_mode(record, self.policy.mode))
            case Scalars():
                for step in expand(record):
                    self.feed(stream, step)
            case End():
                context.end(record)
                for rule in self._rules:
                    self._tell(rule, max(context.last_step, 0), rule.on_end, context)

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
            seen = self._blinkers.seen(rule, view)
            self._tell(rule, record.step, rule.on_step, self._context, seen)

    def _tell(self, rule: Rule, step: int, method: Any, *told: object) -> None:
        if rule.id in self.broken:
            return
        try:
            method(*told)
        except Exception as error:  # a fault in one rule, whatever it is, must not stop the others
            self.broken[rule.id] = f"{type(error).__name__} at step {step}: {str(error)[:500]}"

    def findings(self) -> list[Finding]:
        """All findings, each either a root or under one; most severe first, then earliest."""
        context = self._context
        return arbitrate(
            [
                self.policy.apply(
                    msgspec.structs.replace(
                        found, evidence={**found.evidence, "unless": _unless(type(rule))}
                    ),
                    context.project,
                    context.time,
                )
                for rule, found in self._all_found()[0]
            ]
        )

    def _all_found(self) -> tuple[list[tuple[Rule, Finding]], dict[str, str]]:
        """What each rule has found, the composite ones last, and what went wrong in those that raised."""
        found: list[tuple[Rule, Finding]] = []
        errors = dict(self.broken)
        for rule in sorted(self._rules, key=lambda rule: isinstance(rule, CompositeRule)):
            if rule.id in errors:
                continue
            try:
                told = (
                    rule.combine(self._context, [one for _, one in found])
                    if isinstance(rule, CompositeRule)
                    else rule.findings(self._context)
                )
                found += [(rule, one) for one in told]
            except Exception as raised:  # a fault in one rule, whatever it is
                errors[rule.id] = _said(raised)
        return found, errors

    def states(self) -> list[RuleState]:
        """Where each rule stands, in the order of the rules."""
        rules = {rule.id: rule for rule in self._rules}
        found, errors = self._all_found()
        told = [one for _, one in found]
        return [self._state(known.id, rules.get(known.id), told, errors) for known in self._known]

    def _state(
        self, name: str, rule: Rule | None, found: Sequence[Finding], errors: dict[str, str]
    ) -> RuleState:
        if rule is None:
            reason = self.policy.of(name).reason
            why = f"Switched off by the policy{f': {reason}' if reason else '.'}"
            return RuleState(rule=name, state="not applicable", reason=why)
        error = errors.get(name)
        if error is None:
            try:
                if isinstance(rule, CompositeRule):
                    return rule.standing(self._context, found)
                return rule.state(self._context)
            except Exception as raised:  # a fault in one rule, whatever it is
                error = _said(raised)
        return RuleState(rule=name, state="error", reason=f"The rule failed: {error}")

    def save(self) -> bytes:
        """All that `load` needs to go on from here."""
        rules = {
            rule.id: msgspec.Raw(msgspec.msgpack.encode(rule))
            for rule in self._rules
            if rule.id not in self.broken
        }
        saved = _Saved(VERSION, self._context, rules, self.policy, self.broken, self.states())
        return msgspec.msgpack.encode(saved)

    @classmethod
    def load(cls, data: bytes, rules: Sequence[type[Rule]] = RULES) -> "Engine":
        """The engine that `save` described, under the policy that it had. Raises StateError."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
            engine = cls(rules, saved.policy)
            expected = {rule.id for rule in engine._rules} - saved.broken.keys()
            if saved.version != VERSION or set(saved.rules) != expected:
                raise StateError("The saved state is of another version of the rules.")
            engine._rules = [
                msgspec.msgpack.decode(saved.rules[rule.id], type=type(rule))
                if rule.id in saved.rules
                else rule
                for rule in engine._rules
            ]
        except msgspec.DecodeError as error:
            raise StateError(f"The saved state cannot be read: {error}.") from error
        engine.broken = saved.broken
        engine._context = saved.context
        engine._groups = {
            number: Group(layout, engine.policy.roles)
            for number, layout in saved.context.layouts.items()
        }
        return engine


def states_of(data: bytes) -> list[RuleState]:
    """What `Engine.states` said when `Engine.save` made `data`. Raises StateError."""
    try:
        told = _told.decode(data)
        if told.version == VERSION:
            return told.states
    except msgspec.ValidationError:  # saved before states were kept with it
        return Engine.load(data).states()
    except msgspec.DecodeError as error:
        raise StateError(f"The saved state cannot be read: {error}.") from error
    raise StateError("The saved state is of another version of the rules.")


def _said(raised: Exception) -> str:
    return f"{type(raised).__name__}: {str(raised)[:500]}"


def _unless(rule: type[Rule]) -> list[str]:
    """What would make a finding of the rule a false alarm; nothing for a rule that has no text."""
    try:
        return about(rule).false_alarms
    except LookupError:
        return []


def _in_mode(record: Step, mode: str | None) -> Step:
    """The record with what is said of the run's mode in place of what was inferred."""
    seen = record.observed
    if mode is None or seen is None or seen.facts is None:
        return record
    facts = msgspec.structs.replace(seen.facts, mode=mode)
    return msgspec.structs.replace(record, observed=msgspec.structs.replace(seen, facts=facts))


def _under(policy: Policy, rule: type[Rule]) -> type[Rule]:
    return tuned(rule, policy.of(rule.id).thresholds)
