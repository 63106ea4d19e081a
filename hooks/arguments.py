"""What `watch` may be called with, checked at the door: the only place that raises."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from trainvitals.hooks.pace import Pace


class Asked(NamedTuple):
    """The checked arguments of `watch`."""

    models: list[nn.Module]
    optimizers: list[Optimizer]
    pace: Pace
    include: list[str]
    exclude: list[str]


def check(
    model: Any,
    optimizer: Any,
    *,
    criterion: Any,
    overhead: Any,
    interval: Any,
    include: Any,
    exclude: Any,
) -> Asked:
    """Raises TypeError or ValueError naming the argument, what it was and what was expected."""
    models = list(model) if isinstance(model, list | tuple) else [model]
    for item in models:
        if not isinstance(item, nn.Module):
            raise TypeError(f"watch expects a torch.nn.Module; got {type(item).__name__}.")
    if not models:
        raise ValueError("watch needs at least one model; got an empty list.")
    if optimizer is None:
        given = []
    else:
        given = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    if criterion is not None and not isinstance(criterion, nn.Module):
        raise TypeError(
            "criterion must be a module such as nn.CrossEntropyLoss(); got "
            f"{type(criterion).__name__}. Log the value of a plain function with tv.log."
        )
    if criterion is not None and criterion.__hash__ is None:
        raise TypeError(
            f"criterion {type(criterion).__name__} has no hash, as a dataclass has none: make it one with "
            "@dataclass(eq=False), or log its value with tv.log."
        )
    if isinstance(overhead, bool) or not isinstance(overhead, int | float) or not 0 < overhead <= 1:
        raise ValueError(
            f"overhead is a share of the step time above 0, up to 1; got {overhead!r}."
        )
    if interval is not None and (
        isinstance(interval, bool) or not isinstance(interval, int) or interval < 1
    ):
        raise ValueError(f"interval is a number of steps, 1 or more; got {interval!r}.")
    return Asked(
        models=models,
        optimizers=[_optimizer(item) for item in given],
        pace=Pace(float(overhead), interval),
        include=_globs(include, "include"),
        exclude=_globs(exclude, "exclude"),
    )


def _optimizer(given: Any) -> Optimizer:
    """The torch optimizer that steps: `given` itself, or what a wrapper keeps.

    A wrapper may call itself an Optimizer without ever having been initialized as one (Accelerate's and many a
    Lookahead do): it has no step hooks, and what steps is the one inside.
    """
    inner = given
    for _ in range(4):
        if isinstance(inner, Optimizer) and "_optimizer_step_pre_hooks" in vars(inner):
            return inner
        inner = _kept_by(inner)
    if isinstance(given, Optimizer):
        raise TypeError(
            f"{type(given).__name__} is an Optimizer whose __init__ never called super().__init__(): it has no "
            "step hooks, so its steps cannot be seen. Call it there, or give the optimizer that it wraps."
        )
    raise TypeError(
        f"optimizer must be a torch.optim.Optimizer or a list of them; got {type(given).__name__}. "
        "If that wraps one, give the one inside."
    )


def _kept_by(wrapper: Any) -> Any:
    """What a wrapper has as `.optimizer`, or the only optimizer among its attributes; None if there is none."""
    named = getattr(wrapper, "optimizer", None)
    if named is not None:
        return named
    attributes = getattr(wrapper, "__dict__", {}).values()
    found = {id(value): value for value in attributes if isinstance(value, Optimizer)}
    return next(iter(found.values())) if len(found) == 1 else None


def _globs(given: Any, name: str) -> list[str]:
    globs: Sequence[Any] = [given] if isinstance(given, str) else list(given)
    for glob in globs:
        if not isinstance(glob, str):
            raise TypeError(f'{name} takes globs of names, such as "encoder.*"; got {glob!r}.')
    return [str(glob) for glob in globs]
