"""The numbers of a rule that a policy may change: class variables of one of the kinds below.

    high: ClassVar[Positive] = 0.1
    \"\"\"Why it is what it is: the rule's page shows this text.\"\"\"

A rule with other numbers is a class of its own, so that rules read them as `self.high` and save none of them.
"""

import ast
import inspect
import math
import textwrap
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
"""A number above 0."""
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
"""A part of a whole, between 0 and 1."""
Count = Annotated[int, msgspec.Meta(ge=1)]
"""Steps, samples, layers: a whole number from 1."""

_KINDS = (Positive, Share, Count)


class Threshold(msgspec.Struct, frozen=True):
    """A number that decides when a rule fires."""

    name: str
    default: float
    reason: str


@lru_cache
def thresholds(rule: type) -> tuple[Threshold, ...]:
    """All thresholds of a rule, in the order in which they are declared, those of its bases first."""
    reasons = _reasons(rule)
    return tuple(
        Threshold(name, getattr(_declared(rule), name), reasons.get(name, ""))
        for name in _kinds(rule)
    )


@lru_cache
def _kinds(rule: type) -> dict[str, Any]:
    """Kind of each threshold by its name."""
    found = {}
    for base in reversed(rule.__mro__[:-1]):
        hints = get_type_hints(base, include_extras=True)
        for name in inspect.get_annotations(base):
            hint = hints[name]
            if get_origin(hint) is ClassVar and get_args(hint)[0] in _KINDS:
                found[name] = get_args(hint)[0]
    return found


def _declared(rule: type) -> type:
    """The class in the source, of one that `tuned` has made."""
    return rule.__mro__[1] if "tuned" in rule.__dict__ else rule


@lru_cache
def _reasons(rule: type) -> dict[str, str]:
    """The texts below the class variables of a rule and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(_declared(rule).__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError):  # not from a file: built in, or made by a test
            continue
        if isinstance(tree, ast.ClassDef):
            found |= _texts(tree)
    return found


def _texts(tree: ast.ClassDef) -> dict[str, str]:
    return {
        first.target.id: " ".join(second.value.value.split())
        for first, second in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
        and isinstance(second.value.value, str)
    }


def checked(rule: type, name: str, value: object) -> float:
    """`value` as that threshold. Raises ValueError that says what was expected."""
    try:
        number: float = msgspec.convert(value, _kinds(rule)[name])
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "")) from None
    if not math.isfinite(number):
        raise ValueError("Expected a finite number")
    return number


def tuned(rule: type, values: Mapping[str, float]) -> type:
    """`rule` with other thresholds; always the same class for the same ones."""
    return _tuned(rule, tuple(sorted(values.items()))) if values else rule


@lru_cache(maxsize=1024)
def _tuned(rule: type, values: tuple[tuple[str, float], ...]) -> type:
    members = dict(values) | {"__module__": rule.__module__, "tuned": True}
    return types.new_class(rule.__name__, (rule,), exec_body=lambda space: space.update(members))
