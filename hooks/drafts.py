"""Records in the making: of the step under way, and of the one before while an optimizer has yet to step in it."""

from collections.abc import Sequence

from torch.optim import Optimizer

from trainvitals.hooks.draft import Draft, Emitter
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.parameterlook import ParameterLook
from trainvitals.hooks.sharded import Shards


class Drafts:
    """Tells to which step's record an optimizer's step belongs.

    The optimizer that counts completes a step. The others may have had their turn in it by then, or have it after.
    """

    def __init__(
        self, optimizers: Optimizers, parameters: ParameterLook, shards: Shards, emitter: Emitter
    ) -> None:
        self._optimizers = optimizers
        self._parameters = parameters
        self._shards = shards
        self._emitter = emitter
        self.current: Draft | None = None
        """Of the step under way; None where nobody looks at it."""
        self.held: Draft | None = None
        """Of a completed step in which not all optimizers had their turn."""
        self._clipped_together = False
        """Whether gradients of the optimizer that counts and others were clipped in the step under way."""

    @property
    def empty(self) -> bool:
        """Whether nobody looks at anything."""
        return self.current is None and self.held is None

    def begin(self, draft: Draft | None) -> None:
        """A step begins; without a draft if nobody looks at it."""
        self.current = draft
        self._clipped_together = False

    def clipped(self, optimizers: Sequence[Optimizer]) -> None:
        """Gradients of all these are about to be clipped at once.

        With those of the optimizer that counts, they are of the step under way: whoever left its turn in the one
        before out has it no more.
        """
        if any(map(self._optimizers.is_primary, optimizers)):
            self._clipped_together = True
            if self.held is not None:
                self.emit_held()

    def of(self, optimizer: Optimizer) -> Draft | None:
        """The record that its step belongs to; None where nobody looks, or the ranks have added up that one already."""
        if self.is_missing(optimizer):
            return None if self._shards.watching else self.held
        return self.current

    def is_missing(self, optimizer: Optimizer) -> bool:
        """Whether its turn in the step before, which is looked at, has yet to come."""
        return self.held is not None and not self._optimizers.has_stepped(optimizer)

    def is_behind(self, optimizer: Optimizer) -> bool:
        """Whether this is its turn in the step before the one under way, at which nobody looked."""
        over = self.held is None and not self._clipped_together
        return over and self._optimizers.is_late(optimizer)

    def completed(self, draft: Draft) -> None:
        """The optimizer that counts has stepped: emit the record as soon as all the others have."""
        self.held = draft
        self.stepped()

    def stepped(self) -> None:
        """Emit what is held, if every optimizer has had its turn."""
        if self.held is not None and self._optimizers.all_stepped():
            self.emit_held()

    def emit_held(self) -> None:
        """The turn of whoever is missing will not come any more."""
        held, self.held = self.held, None
        self._optimizers.new_round()
        if held is not None:
            norm = self._parameters.take_norm(held)
            if norm is not None:
                held.scalars["tv/grad_norm"] = norm
            self._emitter.emit(held)
