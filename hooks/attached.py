"""All that a run has attached to torch, put in place, taken off and set aside together."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

from torch.optim import Optimizer, optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.uncompiled import uncompiled


class Part(Protocol):
    """What replaces functions of torch."""

    def attach(self) -> None: ...

    def detach(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]: ...


class Attached:
    """The two global hooks round an optimizer's step, and the parts that replace functions."""

    def __init__(
        self,
        before_step: Callable[[Optimizer, Any, Any], None],
        after_step: Callable[[Optimizer, Any, Any], None],
        parts: Sequence[Part],
    ) -> None:
        self._before_step = before_step
        self._after_step = after_step
        self._parts = parts
        self._handles: list[RemovableHandle] = []

    def __bool__(self) -> bool:
        return bool(self._handles)

    def put(self) -> None:
        """Attach all of it."""
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        for part in self._parts:
            part.attach()

    def take_back(self) -> None:
        """Take all of it off again."""
        remove(self._handles)
        self._handles = []
        for part in self._parts:
            part.detach()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """As if nothing were attached, for a while."""
        with ExitStack() as stack:
            stack.enter_context(hooks_off(self._handles))
            for part in self._parts:
                stack.enter_context(part.aside())
            yield


_left: list[RemovableHandle] = []
"""Hooks that do nothing any more, in the place of those that could not be removed when they should."""


def remove(handles: Sequence[RemovableHandle]) -> None:
    """Take these hooks off. In the midst of a step, as a finding's reaction may end the watch, torch is perhaps just
    going through its hooks, and would fail if one was gone: there they do nothing from now on, and are removed with the
    next ones."""
    if _in_step() is not None:
        _silence(handles)
        _left.extend(handles)
        return
    for handle in (*_left, *handles):
        handle.remove()
    _left.clear()


def in_hook() -> bool:
    """Whether this thread is inside of a hook of an optimizer's step: torch, going through its hooks, would fail if one
    was added."""
    inside = _in_step()
    return inside is not None and "step" not in inside


def _in_step() -> list[str] | None:
    """The names of the functions that an optimizer's step has called, if this thread is inside of one: `step` is among
    them but for those of its hooks."""
    frame, inside = sys._getframe(), list[str]()
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_globals is vars(optimizer) and frame.f_code.co_name == "wrapper":
            return inside
        inside.append(frame.f_code.co_name)
    return None


def _silence(handles: Sequence[RemovableHandle]) -> list[tuple[dict[int, Any], int, Any]]:
    """Let each do nothing: returns the hooks that it is among, its place and what it did."""
    places = [(handle.hooks_dict_ref(), handle.id) for handle in handles]
    taken = [
        (hooks, key, hooks[key]) for hooks, key in places if hooks is not None and key in hooks
    ]
    for hooks, key, _ in taken:
        hooks[key] = _nothing
    return taken


@contextmanager
def hooks_off(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """With one that does nothing in the place of each of these hooks, for a while.

    Their order stays, a step that is just going through them is not disturbed, and no hook is registered anew, which
    would say that modules may have some that they had not (`hooks_so_far`).
    """
    taken = _silence(handles)
    try:
        yield
    finally:
        for hooks, key, hook in taken:
            hooks[key] = hook


@uncompiled
def _nothing(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Take no notice of a step."""
