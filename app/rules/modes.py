"""Training and evaluation mode: dropout and batch norm that run in the wrong one."""

from typing import ClassVar

from trainvitals.app.rules.base import listing
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Severity
from trainvitals.app.rules.observed import FINE, SKIP, EvaluationRule, Looked, ObservedRule, wrong
from trainvitals.app.rules.thresholds import Count
from trainvitals.hooks.wire.observed import Observed


class TrainModeMissing(ObservedRule):
    """Dropout and batch norm are in evaluation mode while the model is trained."""

    id: ClassVar[str] = "train-mode-missing"
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "model.train() before training, and again after every evaluation"
    remedy: ClassVar[str] = (
        "Call model.train() after each evaluation, and at the start where the model comes from a checkpoint. False "
        "alarm: statistics and dropout that are switched off on purpose while fine-tuning."
    )
    diff: ClassVar[str] = "  evaluate(model)\n+ model.train()"
    about: ClassVar[str] = "No layer with two modes was seen in a backward pass."

    was_training: bool = False
    fine_tuned: bool = False

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.facts is not None:
            self.fine_tuned = seen.facts.mode != "scratch"
        modes = seen.modes
        if modes is None or not (
            modes.training or modes.dropout_evaluating or modes.affine_evaluating
        ):
            return SKIP
        if modes.training:
            self.was_training = True
            return FINE
        norms_only = not modes.dropout_evaluating
        severity: Severity = (
            "critical"
            if self.was_training
            else "info"
            if norms_only and self.fine_tuned
            else "warning"
        )
        return wrong(
            f"Training runs in evaluation mode: {listing(modes.names)}",
            f"{modes.dropout_evaluating} dropout and {modes.evaluating - modes.dropout_evaluating} batch norm layers "
            "in evaluation mode at backward",
            severity,
            layers=modes.names,
        )


class EvalModeLeak(EvaluationRule):
    """The model is evaluated with dropout and batch norm in training mode."""

    id: ClassVar[str] = "eval-mode-leak"
    leaks: ClassVar[Count] = 5
    """Calls without gradients in training mode, at least: one may be a dry run."""
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "model.eval() before an evaluation, model.train() after it"
    remedy: ClassVar[str] = (
        "Call model.eval() before evaluating. As it is the numbers are those of a model with dropout, and batch norm "
        "takes the evaluation's statistics into the model. False alarm: Monte Carlo dropout, or statistics that are "
        "estimated anew on purpose."
    )
    diff: ClassVar[str] = "+ model.eval()\n  with torch.no_grad():"
    about: ClassVar[str] = "The model was not called without gradients."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        told = seen.evaluation
        if told is None:
            return SKIP
        leaks = told.training >= self.leaks and told.training > 0.5 * told.forwards
        if not leaks or not self._between_steps(context, told.training_phases):
            return FINE
        return wrong(
            f"{told.training} evaluations of the model ran in training mode: {listing(told.names)}",
            f"{told.training} of {told.forwards} calls without gradients, in {told.training_phases} pauses of the "
            "training",
            layers=told.names,
        )


class FrozenBnUpdating(ObservedRule):
    """A frozen batch norm still takes the statistics of the batches."""

    id: ClassVar[str] = "frozen-bn-updating"
    expected: ClassVar[str] = "Frozen batch norms in evaluation mode"
    remedy: ClassVar[str] = (
        "Put frozen batch norms into evaluation mode after every model.train(): the frozen part of the model drifts "
        "away with its statistics. False alarm: adapting them to new data."
    )
    diff: ClassVar[str] = "  model.train()\n+ model.backbone.eval()"
    about: ClassVar[str] = "No layer with two modes was seen in a backward pass."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.modes is None:
            return SKIP
        names = seen.modes.frozen_moving
        if not names:
            return FINE
        return wrong(
            f"{listing(names)}: frozen, and still learning the statistics of the batches",
            f"{len(names)} batch norms with frozen weights in training mode",
            "warning",
            layers=names,
        )


class BnSmallBatch(ObservedRule):
    """Batch norm over very few samples."""

    id: ClassVar[str] = "bn-small-batch"
    few: ClassVar[Count] = 8
    """Samples below which a batch's statistics are noise: the standard error of a variance over 8 is 53 %."""
    too_few: ClassVar[Count] = 4
    """Samples below which it is a warning for `BatchNorm1d`: the standard error of a variance over 4 is 82 %."""
    expected: ClassVar[str] = "Enough samples a batch for their mean and variance to say something"
    remedy: ClassVar[str] = (
        "GroupNorm or LayerNorm, SyncBatchNorm over several devices, or larger batches; gradient accumulation does not "
        "help."
    )
    about: ClassVar[str] = "No batch norm was seen in training mode."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if (
            seen.modes is None
            or seen.batch is None
            or not seen.modes.norms_training
            or not seen.batch.shape
        ):
            return SKIP
        samples = seen.batch.shape[0]
        if samples >= self.few:
            return FINE
        flat = seen.modes.flat_norms_training > 0
        return wrong(
            f"Batch norm takes its statistics from {samples} samples",
            f"Batches of {samples}, fewer than {self.few}; {seen.modes.norms_training} batch norms in training mode",
            "warning" if flat and samples < self.too_few else "info",
        )
