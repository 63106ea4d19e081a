"""Training and evaluation mode: dropout and batch norm that run in the wrong one."""

from typing import ClassVar

from trainvitals.app.rules.base import listing
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Severity
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, wrong
from trainvitals.app.rules.thresholds import Count, Share
from trainvitals.hooks.wire.observed import Observed


class TrainModeMissing(ObservedRule):
    """Dropout and batch norm are in evaluation mode while the model is trained.

    Formula: at backward, every layer with two modes in a trained part of the model is in evaluation mode; in one look.
    Critical when it was otherwise before (typically until the first evaluation), else a warning. Default:
    deterministic. Applies to: models with active dropout, or batch norm with trainable weights. Guards: only batch
    norms in evaluation mode are an info where the run fine-tunes, as freezing their statistics is common there; frozen
    parts do not count. Guide tips: guide D, 32. Sources: guide D; TrainCheck.
    """

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


class EvalModeLeak(ObservedRule):
    """The model is evaluated with dropout and batch norm in training mode.

    Formula: at least 5 calls of the model without gradients had such layers in training mode, in fewer than half of
    the steps; more than half of all such calls. Default: 5, as one may be a dry run. Applies to: evaluation under
    `no_grad` or `inference_mode`. Guards: calls without gradients at every other step and more belong to the training
    (the generator of a GAN, rollouts, teachers). Batch norm then learns from the evaluation's data.
    Sources: guide D; TrainCheck, case transformers 33844.
    """

    id: ClassVar[str] = "eval-mode-leak"
    leaks: ClassVar[Count] = 5
    """Calls without gradients in training mode, at least: one may be a dry run."""
    seldom: ClassVar[Share] = 0.5
    """Share of the steps with calls without gradients up to which these are evaluations: a GAN has them at every
    step."""
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
        if not leaks or told.training_phases > max(self.seldom * context.steps, 1):
            return FINE
        return wrong(
            f"{told.training} evaluations of the model ran in training mode: {listing(told.names)}",
            f"{told.training} of {told.forwards} calls without gradients, in {told.training_phases} pauses of the "
            "training",
            layers=told.names,
        )


class FrozenBnUpdating(ObservedRule):
    """A frozen batch norm still takes the statistics of the batches.

    Formula: a batch norm whose weights are frozen is in training mode at backward; 3/3 looks. Default: deterministic.
    Applies to: batch norms with weights and running statistics. Guards: statistics may be adapted to new data on
    purpose: acknowledge it then. Guide tips: guide C, 17. Sources: practice of fine-tuning.
    """

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
    """Batch norm over very few samples.

    Formula: fewer than 8 samples a batch while a batch norm is in training mode; 3/3 looks. A warning below 4 samples
    for `BatchNorm1d`, whose statistics have nothing else to average over; else an info, as convolutions average over
    positions, too, and train well with few images. Default: the standard error of a variance over 4 is 80 %. Applies
    to: batch norms in training mode. Guards: a last, shorter batch does not come three times in a row.
    Guide tips: 23. Sources: guide A; torch-audit (8).
    """

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
