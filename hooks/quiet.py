"""What happens at every step that nobody looks at, and all that it touches.

The training has emptied the caches of us by the time a step comes round, so what counts here is not the work
but how many objects and functions it touches: each costs a wait for memory of up to 0.1 us. So the state of
all parts is in one object, and each of the two places that a step passes is one flat function.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer

from trainvitals.hooks.aftermath import Aftermath, gradient_of
from trainvitals.hooks.call import Call
from trainvitals.hooks.uncompiled import uncompiled

NO_LIMIT = sys.float_info.max
INFINITE = math.inf
LEAST_CALLS = 1_024
"""Calls that are kept at least: loops call the same few layers many times in one pass."""

_current_graph_task_id = torch._C._current_graph_task_id


class Quiet:
    """What a watched training leaves behind from one step to the next."""

    __slots__ = (
        "aftermath",
        "batch",
        "calls",
        "completed",
        "kept",
        "limit",
        "losses",
        "most_rows",
        "next_look",
        "on",
        "one_pass",
        "optimizer",
        "pending",
        "roots",
        "told_by",
        "usual_pass",
    )

    def __init__(self) -> None:
        self.on = False
        """Whether the flat functions may do the work: a watched step is under way that is not looked at, and nothing
        in it was out of the ordinary so far."""
        self.completed = 0
        """Steps completed so far: the index of the step that is being prepared."""
        self.next_look = 0
        """The next step that is looked at in any way."""
        self.optimizer: Optimizer | None = None
        """The one that counts the steps, if keeping its gradients is all that there is to do."""
        self.aftermath: Aftermath | None = None
        """What is kept of its steps."""
        self.pending = -1
        """Its last step, if no loss since has told how it went and it is not in `kept`; else -1."""
        self.kept: list[Aftermath] = []
        """What is kept of the steps since the last loss that was fine."""
        self.calls: deque[Call]
        """The calls of modules since the last backward pass began."""
        self.one_pass = 0
        """Calls of one forward pass at most, unless it calls layers repeatedly."""
        self.usual_pass = 0
        """The most that were noted of one so far, of which a loss came: what is more may be of two."""
        self.most_rows = LEAST_CALLS
        """Calls from which on another one of a model that is a row pushes out the oldest: each holds a whole graph."""
        self.roots: set[nn.Module] = set()
        """The watched models."""
        self.told_by: Set[nn.Module] = set()
        """Those whose losses tell how the steps of `optimizer` went."""
        self.batch: object = None
        """Arguments of the last call of a watched model before the last backward pass."""
        self.losses: deque[float] = deque(maxlen=100)
        self.limit = NO_LIMIT
        """The largest loss that does not stand out."""
        self.keep_calls(LEAST_CALLS)

    def begin(self, aftermath: Aftermath | None, next_look: int) -> None:
        """A step begins that is left to the flat functions; the optimizer that counts steps has this aftermath."""
        self.keep_pending()
        self.aftermath = aftermath if aftermath is not None and aftermath.is_simple else None
        self.optimizer = self.aftermath.optimizer if self.aftermath is not None else None
        self.told_by = self.aftermath.models if self.aftermath is not None else set()
        self.next_look = next_look
        self.on = True

    def end(self) -> None:
        """The training is not watched any more: let go of all that is its."""
        self.on = False
        self.optimizer = self.aftermath = None
        self.pending = -1
        self.kept.clear()
        self.calls.clear()
        self.roots = self.told_by = set()

    def push_out(self) -> None:
        """Let go of the oldest call."""
        with suppress(IndexError):  # another thread has let go of all of them
            self.calls.popleft()

    def keep_pending(self) -> None:
        """Keep the step that the flat function left behind with the others, to look at them all."""
        if self.pending >= 0 and self.aftermath is not None:
            self.aftermath.step = self.pending
            self.kept.append(self.aftermath)
        self.pending = -1

    def keep_calls(self, most: int) -> None:
        """Keep so many calls at most from now on; forgets those that there are."""
        self.calls = deque(maxlen=most)


def watched_backward(
    original: Callable[..., Any],
    quiet: Quiet,
    let_go: Callable[[Tensor], None],
    before: Callable[[Any, bool], bool],
    after: Callable[[], None],
) -> Callable[..., Any]:
    """`torch.autograd.backward` that notes a loss in passing, if it is a single number on the CPU and a usual one.

    `let_go` lets go of the calls that such a loss came of where that is not as simple as usual. `before` is told of any
    other loss and of what a checkpoint begins from, inside of the pass that is under way, and whether its graph is
    retained; it tells whether `after` is to be called when the backward pass is over. None of them raises.
    """

    def backward(
        tensors: Any,
        grad_tensors: Any = None,
        retain_graph: Any = None,
        create_graph: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if is_dynamo_compiling():
            return original(tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs)
        # A graph that is retained is that of another loss, too, whose calls then are still of use.
        if (
            quiet.on
            and not retain_graph
            and type(tensors) is Tensor
            and tensors.is_cpu
            and tensors.ndim == 0
        ):
            # `tolist` reads the memory at once, where `item` would go through torch's dispatcher.
            loss: float = tensors.tolist()  # type: ignore[assignment]
            try:
                is_usual = -INFINITE < loss <= quiet.limit
            except TypeError:  # it is complex
                is_usual = False
            if is_usual:
                calls = quiet.calls
                if quiet.pending >= 0 and calls and len(calls) <= quiet.usual_pass:
                    last = calls[-1]
                    if last[0] in quiet.told_by:
                        quiet.pending = -1
                        quiet.losses.append(loss)
                        aftermath: Any = quiet.aftermath
                        if aftermath.tensors:
                            aftermath.gradients = ()
                        quiet.batch = last[1:3]
                        calls.clear()
                        return original(
                            tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs
                        )
                if _current_graph_task_id() == -1:
                    quiet.losses.append(loss)
                    let_go(tensors)
                    return original(
                        tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs
                    )
        if not before(tensors, bool(retain_graph)):
            return original(tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs)
        try:
            return original(tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs)
        finally:
            after()

    return backward


def watched_step(
    quiet: Quiet, look: Callable[[Optimizer, Any, Any], None]
) -> Callable[[Optimizer, Any, Any], None]:
    """A hook for after an optimizer's step, that keeps its gradients until the next loss tells how it went.

    `look` does what there is to do after all other steps.
    """

    @uncompiled
    def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if (
            quiet.on
            and optimizer is quiet.optimizer
            and quiet.completed + 1 < quiet.next_look
            and quiet.pending < 0
            and not quiet.calls
            and not quiet.kept
        ):
            aftermath: Any = quiet.aftermath
            if aftermath.tensors:
                aftermath.gradients = list(map(gradient_of, aftermath.tensors))
            quiet.pending = quiet.completed
            quiet.completed += 1
        else:
            look(optimizer, args, kwargs)

    return after_step
