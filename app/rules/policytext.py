"""Reads a policy from TOML, and says of everything that is wrong in it where it stands and what was expected.

[rules.update-ratio-high]
high = 0.2                     # a threshold of the rule
severity = "info"              # or {critical = "warning"}
ignore_layers = ["embed*"]
enabled = true

[[acknowledge]]
rule = "loss-stuck-at-prior"
until = 2026-12-31

[roles]                        # "matrix", "head" or "other", where the rules would infer another one
"decoder.out" = "head"
"*.codes" = "other"
"""

import datetime
import re
import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeGuard, get_args

import msgspec

from trainvitals.app.rules.about import about
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Role
from trainvitals.app.rules.finding import SEVERITIES, Severity
from trainvitals.app.rules.policy import Acknowledgement, Mode, Policy, RulePolicy
from trainvitals.app.rules.thresholds import checked, thresholds

MAX_BYTES: Final = 256 << 10
MAX_TEXT: Final = 1_000
MAX_PATTERNS: Final = 1_000

Path = tuple[str | int, ...]
"""Keys and places in lists that lead to a value."""


class Problem(msgspec.Struct, frozen=True):
    """Something wrong in the text."""

    line: int
    """From 1; 0 where it can't be told."""
    key: str
    """Dotted; "" for the text as a whole."""
    message: str
    """What is wrong, what was expected, what to do."""

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


class PolicyError(ValueError):
    """A text that is no policy; all that is wrong in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = list(problems)


def parse(text: str, rules: Sequence[type[Rule]]) -> Policy:
    """The policy that `text` says. Raises PolicyError."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise PolicyError([Problem(0, "", f"The file is larger than {MAX_BYTES >> 10} KiB.")])
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        reached = int(line[1]) if line else text.count("\n") + 1
        raise PolicyError([Problem(reached, "", f"This is no TOML: {error}.")]) from None
    except RecursionError:
        raise PolicyError([Problem(0, "", "Values are nested too deeply.")]) from None
    reader = _Reader(text, {rule.id: rule for rule in rules})
    policy = reader.policy(document)
    if reader.problems:
        raise PolicyError(sorted(reader.problems, key=lambda problem: problem.line))
    return policy


class _Reader:
    """Goes through a document and notes all problems on its way."""

    def __init__(self, text: str, rules: dict[str, type[Rule]]) -> None:
        self._lines = _lines(text)
        self._rules = rules
        self.problems: list[Problem] = []

    def policy(self, document: dict[str, Any]) -> Policy:
        self._known(document, Policy.__struct_fields__, ())
        rules, acknowledge = document.get("rules", {}), document.get("acknowledge", [])
        if not isinstance(rules, dict):
            self._note(("rules",), f"Expected tables such as [rules.{next(iter(self._rules))}].")
            rules = {}
        if not isinstance(acknowledge, list):
            self._note(("acknowledge",), "Expected [[acknowledge]], in double brackets.")
            acknowledge = []
        return Policy(
            rules={name: self._rule(name, said) for name, said in rules.items()},
            acknowledge=tuple(
                found
                for index, said in enumerate(acknowledge)
                if (found := self._acknowledgement(index, said)) is not None
            ),
            roles=self._roles(document),
            mode=self._one_of(document.get("mode"), get_args(Mode), ("mode",)),
        )

    def _roles(self, document: dict[str, Any]) -> dict[str, Role]:
        said = document.get("roles", {})
        if not isinstance(said, dict) or len(said) > MAX_PATTERNS:
            self._note(("roles",), 'Expected a table of globs, such as "decoder.out" = "head".')
            return {}
        return {
            glob: role
            for glob, value in said.items()
            if (role := self._one_of(value, get_args(Role), ("roles", glob))) is not None
        }

    def _one_of(self, value: Any, known: Sequence[str], path: Path) -> Any:
        if value is None or value in known:
            return value
        self._note(path, f"Expected one of {', '.join(known)}; {value!r} is none of them.")
        return None

    def _rule(self, name: str, said: object) -> RulePolicy:
        path: Path = ("rules", name)
        rule = self._rules.get(name)
        if rule is None:
            self._note(path, f"There is no rule {name!r}.{_meant(name, self._rules)}")
            return RulePolicy()
        if not isinstance(said, dict):
            self._note(path, f"Expected a table: [rules.{name}].")
            return RulePolicy()
        tunable = [threshold.name for threshold in thresholds(rule)]
        self._known(said, (*_RULE_KEYS, *tunable), path)
        return RulePolicy(
            enabled=self._plain(said, "enabled", bool, path, True),
            severity=self._severity(said, path),
            thresholds={
                key: number
                for key in said.keys() & set(tunable)
                if (number := self._threshold(rule, said, key, path)) != getattr(rule, key)
            },
            ignore_layers=self._layers(rule, said, path),
            reason=self._plain(said, "reason", str, path, ""),
        )

    def _layers(self, rule: type[Rule], said: dict[str, Any], path: Path) -> tuple[str, ...]:
        patterns = self._patterns(said, "ignore_layers", path)
        if patterns and about(rule).scope == "run":
            text = "This rule judges the run as a whole; there is no layer to leave out."
            self._note((*path, "ignore_layers"), text)
        return patterns

    def _threshold(self, rule: type[Rule], said: dict[str, Any], key: str, path: Path) -> float:
        default: float = getattr(rule, key)
        try:
            return checked(rule, key, said[key])
        except ValueError as error:
            self._note((*path, key), f"{error}; the default is {default:g}.")
            return default

    def _severity(self, said: dict[str, Any], path: Path) -> dict[Severity, Severity]:
        value = said.get("severity", {})
        place = (*path, "severity")
        if isinstance(value, str):
            return dict.fromkeys(SEVERITIES, value) if self._is_severity(value, place) else {}
        if not isinstance(value, dict):
            self._note(place, 'Expected a severity such as "info", or {critical = "warning"}.')
            return {}
        return {
            before: after
            for before, after in value.items()
            if self._is_severity(before, place) and self._is_severity(after, (*place, before))
        }

    def _is_severity(self, value: object, path: Path) -> TypeGuard[Severity]:
        if value in SEVERITIES:
            return True
        self._note(path, f"{value!r} is no severity. Expected one of {', '.join(SEVERITIES)}.")
        return False

    def _acknowledgement(self, index: int, said: object) -> Acknowledgement | None:
        path: Path = ("acknowledge", index)
        if not isinstance(said, dict):
            self._note(path, "Expected a table: [[acknowledge]].")
            return None
        self._known(said, _ACKNOWLEDGE_KEYS, path)
        rule, until = said.get("rule"), said.get("until")
        if rule not in self._rules:
            meant = _meant(str(rule), self._rules)
            text = "rule is missing." if rule is None else f"There is no rule {rule!r}.{meant}"
            self._note((*path, "rule"), text)
        if isinstance(until, datetime.datetime):
            until = until.date()
        if not isinstance(until, datetime.date):
            self._note(
                (*path, "until"), "Expected the last day, such as until = 2026-12-31, unquoted."
            )
        layers, projects = (self._patterns(said, key, path) for key in ("layers", "projects"))
        reason = self._plain(said, "reason", str, path, "")
        if not isinstance(rule, str) or not isinstance(until, datetime.date):
            return None
        return Acknowledgement(
            rule=rule, until=until, layers=layers, projects=projects, reason=reason
        )

    def _patterns(self, said: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
        value = said.get(key, [])
        fits = isinstance(value, list) and len(value) <= MAX_PATTERNS
        if fits and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        self._note((*path, key), 'Expected a list of globs, such as ["encoder.*", "head"].')
        return ()

    def _plain(self, said: dict[str, Any], key: str, kind: type, path: Path, default: Any) -> Any:
        value = said.get(key, default)
        if isinstance(value, kind) and not (isinstance(value, str) and len(value) > MAX_TEXT):
            return value
        expected = "true or false" if kind is bool else f"a text of up to {MAX_TEXT} characters"
        self._note((*path, key), f"Expected {expected}.")
        return default

    def _known(self, said: dict[str, Any], keys: Sequence[str], path: Path) -> None:
        for key in said.keys() - set(keys):
            meant = _meant(key, keys)
            self._note(
                (*path, key), f"There is no key {key!r} here.{meant} Known: {', '.join(keys)}."
            )

    def _note(self, path: Path, message: str) -> None:
        line = next(
            (self._lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._lines), 0
        )
        key = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
        self.problems.append(Problem(line, key.removeprefix("."), message))


_RULE_KEYS = tuple(name for name in RulePolicy.__struct_fields__ if name != "thresholds")
_ACKNOWLEDGE_KEYS = Acknowledgement.__struct_fields__


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _lines(text: str) -> dict[Path, int]:
    """The line at which each table and each key begins, as far as single lines tell: TOML parsers keep none."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        keys = _keys(line)
        whole = (*table, *keys)
        if keys and line.startswith("[["):
            counts[keys] = counts.get(keys, -1) + 1
            table = whole = (*keys, counts[keys])
        elif keys and line.startswith("["):
            table = whole = keys
        for length in range(1, len(whole) + 1):
            found.setdefault(whole[:length], number)
    return found


def _keys(line: str) -> Path:
    """The dotted key of a table's head or of an assignment; empty for other lines."""
    head = line if line.startswith("[") else line.partition("=")[0] + "= 0"
    try:
        value: object = tomllib.loads(head)
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(value, dict | list) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key, value = next(iter(value.items()))
        keys.append(key)
    return tuple(keys)
