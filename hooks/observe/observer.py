"""Puts together what is observed in a step that is looked at, for its record."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainvitals.hooks.accounts import Accounts
from trainvitals.hooks.call import Call
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.interception import without_values
from trainvitals.hooks.observe import batches, facts, graph, losses, targets
from trainvitals.hooks.observe.loaders import Loaders
from trainvitals.hooks.observe.modes import Evaluations, Moded
from trainvitals.hooks.observe.order import CallOrder
from trainvitals.hooks.observe.peers import Peers
from trainvitals.hooks.observe.reading import Reading, first
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.wire.observed import Modes

_CLOSE = 3
"""First looks in which batches and losses are measured, with the value of each loss: what the rules ask for to be
sure. Later in every `_SELDOM`th look, without it."""
_SELDOM = 2
_NAMES = 50
_FOREIGN = 3
"""Steps of another optimizer after which the models seem to have none of their own: then it is told of."""


class Observer:
    """Sees the loop in sampled steps, from `begin` to `end`; nothing of it is attached in other steps."""

    def __init__(
        self,
        registry: Registry,
        optimizers: Callable[[], Sequence[Optimizer]],
        see_labels: Callable[[Tensor], None],
        emit: Callable[[Draft], None],
        step: Callable[[], int],
        interrupted: Callable[[], None],
        accounts: Accounts,
        problems: Problems,
        peers: Peers | None = None,
    ) -> None:
        """`optimizers`: those known, the counting one first; `see_labels` counts labels that nobody told of;
        `emit` sends a record; `step`: the index of the step under way; `interrupted`: an evaluation begins;
        `peers`: this rank among others, where there are any."""
        self._registry = registry
        self._optimizers = optimizers
        self._see_labels = see_labels
        self._emit = emit
        self._step = step
        self._interrupted = interrupted
        self._accounts = accounts
        self._problems = problems
        self._peers = peers
        self._order = CallOrder(optimizers, self._see_backward)
        self._moded = Moded(registry)
        self._evaluations = Evaluations(registry, self._moded)
        self._loaders = Loaders(step, self._spent_aside)
        self._facts = Reading()
        self._weights: facts.Weights | None = None
        self._told_facts = False
        self._foreign = 0
        """Steps seen of optimizers that hold nothing of the watched models."""
        self._told_labels = False
        """Whether the training tells of its labels itself."""
        self._uncounted: Tensor | None = None
        """Labels of the last look: counted when the next one begins, if nobody told of any until then."""
        self._reading: Reading | None = None
        self._losses: list[losses.Made] = []
        self._modes: Modes | None = None
        self._labels: targets.Asked | None = None
        self._batch_seen = False
        self._grads = -1
        self._unheld: list[str] | None = None
        self._ungiven: list[str] | None = None
        self._root: int | None = None
        self._looks = 0
        self._measured = False
        """Whether batches and losses are measured in this look."""

    # A step that is looked at

    def begin(self) -> None:
        """See what happens from here to the end of the step."""
        self._reading = Reading()
        self._losses, self._modes, self._labels = [], None, None
        if self._weights is None and not self._told_facts:
            with self._looking("looking at the first weights"), torch.no_grad():
                self._weights = facts.Weights(self._registry, self._facts)
        self._measured = self._looks < _CLOSE or self._looks % _SELDOM == 0
        self._looks += 1
        self._batch_seen, self._grads, self._root = False, -1, None
        self._unheld = self._ungiven = None
        if self._uncounted is not None and not self._told_labels:
            self._see_labels(self._uncounted)
        self._uncounted = None
        self._order.attach()

    def aside(self) -> AbstractContextManager[None]:
        """With what was replaced put back for a while."""
        return self._order.aside()

    def end(self) -> None:
        """See nothing more, and put back what was replaced."""
        self._order.detach()
        self._reading = None

    def watch(self, models: Sequence[nn.Module]) -> None:
        """These are watched from now on, as they were given."""
        if self._peers is not None:
            self._peers.watch(models)

    def forget(self) -> None:
        """See nothing more, and let go of the models."""
        self.end()
        if self._peers is not None:
            self._peers.forget()
        self._moded.forget()
        self._losses, self._uncounted = [], None

    def fill(self, draft: Draft) -> None:
        """The step is complete: what was seen of it belongs to `draft`."""
        reading = self._reading
        if reading is None:
            return
        made, labels, root = self._losses, self._labels, self._root
        known: dict[str, object] = {
            "order": list(self._order.tokens),
            "grads": self._grads,
            "unheld": self._unheld,
            "ungiven": self._ungiven,
            "modes": self._modes,
            "loader": self._loaders.told(),
        }
        self._evaluations.tell(reading)
        reading.then(lambda _: {key: value for key, value in known.items() if value is not None})
        reading.then(
            lambda values: {
                "losses": [make(values) for make in made],
                "root": first(values, root),
                "labels": labels.made(values) if labels is not None else None,
            }
        )
        draft.observed = reading

    # What is told from within the training

    def seeing(self, take: Callable[[Call], None]) -> Callable[[Call], None]:
        """`take`, for the calls of a step that is looked at; the first one of the model shows the batch."""
        roots = self._registry.roots

        def see(call: Call) -> None:
            if call[0] in roots and not without_values():
                self._see_batch(call)
            take(call)

        return see

    def _spent_aside(self, seconds: float) -> None:
        self._accounts.aside += seconds

    def _see_batch(self, call: Call) -> None:
        self._order.note("f")
        if self._batch_seen or self._reading is None:
            return
        self._batch_seen = True
        with self._looking("looking at a batch"), torch.no_grad():
            digest = batches.ask(call, self._reading, self._measured)
            if self._peers is not None:
                self._peers.ask(call, digest, self._step(), self._reading)

    @contextmanager
    def _looking(self, what: str) -> Iterator[None]:
        self._accounts.enter()
        try:
            yield
        except (
            Exception
        ) as error:  # whatever a training's own tensors and layers may raise is not its trouble
            self._problems.caught(what, error)
        self._accounts.leave()

    def _see_backward(self, roots: Any) -> None:
        if self._reading is None or without_values() or getattr(roots, "is_meta", False):
            return
        with self._looking("looking at the loss call"), torch.no_grad():
            if self._measured:
                self._see_root(roots, self._reading)
                self._see_losses(roots, self._reading)
            self._modes = self._moded.seen()

    def _see_root(self, roots: Any, reading: Reading) -> None:
        single = isinstance(roots, Tensor) and roots.numel() == 1
        if self._root is None and single and not roots.is_complex():
            self._root = reading.ask(roots.float())

    def _see_losses(self, roots: Any, reading: Reading) -> None:
        for found in graph.losses_of(roots):
            if len(self._losses) >= losses.MOST_CALLS:
                return
            made, target = losses.ask(found, reading, valued=self._looks <= _CLOSE)
            self._losses.append(made)
            if target is not None and len(self._losses) == 1:
                self._uncounted = target

    def tell_labels(self, labels: Tensor) -> None:
        """The training tells of its labels."""
        self._told_labels = True
        if self._reading is not None and self._labels is None and self._measured:
            self._labels = targets.ask(labels.detach(), self._reading)

    def see_step(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step."""
        if self._reading is None:
            return
        with self._looking("looking at an optimizer"):
            place = self._order.index_of(optimizer)
            self._foreign += place < 0
            if not self._told_facts and (place >= 0 or self._foreign >= _FOREIGN):
                self._tell_facts(optimizer)
            self._order.note(f"s{place}")
            if place == 0 and self._grads < 0:
                self._see_gradients()

    def see_evaluation(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module was called while no gradients are recorded, at any step."""
        if without_values():
            return
        try:
            if self._evaluations.see(module, args, self._step()):
                self._interrupted()
            if self._evaluations.due:
                self.flush()
        except Exception as error:
            self._problems.caught("looking at an evaluation", error)

    def see_loaded(self, iterator: Any, batch: Any) -> None:
        """A DataLoader gave a batch, at any step."""
        try:
            self._loaders.see(iterator, batch)
            if self._loaders.due:
                self.flush()
        except Exception as error:
            self._problems.caught("looking at a loader", error)

    def flush(self) -> None:
        """Send what is known of evaluations and loaders, without waiting for the next look."""
        reading, loader = Reading(), self._loaders.told()
        if loader is not None:
            reading.then(lambda _: {"loader": loader})
        if not self._evaluations.tell(reading) and loader is None:
            return
        draft = Draft(max(self._step() - 1, 0))
        draft.observed = reading
        self._emit(draft)

    def _see_gradients(self) -> None:
        """The counting optimizer is about to step: which parameters have a gradient, and which move by it."""
        known, optimizers = self._registry.parameters, self._optimizers()
        given = {key for key, p in known.items() if p.tensor.grad is not None}
        held = {id(t) for one in optimizers for group in one.param_groups for t in group["params"]}
        self._grads = len(given)
        self._unheld = [p.name for key, p in known.items() if key in given - held][:_NAMES]
        if len(optimizers) == 1:  # of several, others may have no gradients yet
            self._ungiven = [
                p.name for key, p in known.items() if key in held - given and p.tensor.requires_grad
            ][:_NAMES]

    def _tell_facts(self, optimizer: Optimizer) -> None:
        """Once, and at once: an optimizer that holds nothing of the model would complete no step."""
        self._told_facts = True
        known = list(self._optimizers())
        if not any(optimizer is other for other in known):
            known.append(optimizer)
        draft = Draft(self._step())
        draft.observed = self._facts
        if self._weights is not None:
            facts.ask(self._registry, known, self._weights, self._facts)
        self._weights, self._facts = None, Reading()
        self._emit(draft)
