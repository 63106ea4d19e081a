"""train-val-shift: an evaluation whose inputs are of another size than those that are trained on."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.observed import FINE, SKIP, EvaluationRule, Looked, wrong
from trainvitals.app.rules.thresholds import Count, Positive
from trainvitals.app.rules.validation import is_validation_loss
from trainvitals.hooks.wire.observed import BatchSeen, Observed

KEPT: Final = 50
"""Batches of the training that are compared with."""


class TrainValShift(EvaluationRule):
    """The inputs of an evaluation have another mean or size than the training's, and its loss is the higher for it."""

    id: ClassVar[str] = "train-val-shift"
    offset: ClassVar[Positive] = 1.0
    """Distance of the means, in standard deviations of the training's inputs. Two random halves of a data set are
    within a tenth."""
    ratio: ClassVar[Positive] = 2.0
    """Standard deviation against the training's, up or down. Mixing or noise as an augmentation changes it by less
    than 1.5; a division by 255 or a standardisation that one side lacks by 3 and more."""
    noise: ClassVar[Positive] = 6.0
    """Standard deviations from batch to batch of the training: both must be exceeded."""
    least: ClassVar[Count] = 8
    """Samples of an evaluation's batch, and batches of the training, to judge by."""
    k: ClassVar[int] = 2
    n: ClassVar[int] = 2
    expected: ClassVar[str] = "Inputs of the same mean and size in training and evaluation"
    remedy: ClassVar[str] = (
        "Give both splits the same scaling, with the mean and standard deviation of the training's data: one transform "
        "that both data sets share, augmentation apart. Look at a picture or a row of each as the model gets it."
    )
    diff: ClassVar[str] = (
        "- validation = Pictures(files, transform=ToTensor())\n"
        "+ validation = Pictures(files, transform=Compose([ToTensor(), Normalize(mean, std)]))"
    )
    about: ClassVar[str] = "No evaluation with floating-point inputs was seen beside a training."

    means: list[float] = msgspec.field(default_factory=list)
    stds: list[float] = msgspec.field(default_factory=list)
    """Of the last batches of the training."""
    samples: int = 0
    """In such a batch."""
    worst: float = math.nan
    """The latest validation loss, of several in a step the highest."""

    def on_step(self, context: Context, view: StepView) -> None:
        losses = [value for name, value in view.scalars.items() if is_validation_loss(name)]
        self.worst = max(losses, default=self.worst)
        super().on_step(context, view)

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        self._learn(seen.batch)
        told = seen.evaluation
        inputs = told.inputs if told is not None else None
        if told is None or inputs is None or inputs.mean is None or inputs.std is None:
            return SKIP
        if len(self.means) < self.least or inputs.shape[0] < self.least:
            return SKIP
        if not self._between_steps(context, told.phases):
            return SKIP
        difference = self._difference(inputs.mean, inputs.std, inputs.shape[0])
        if not difference:
            return FINE
        mean, std = float(np.median(self.means)), float(np.median(self.stds))
        suffers = self.worst > 1.2 * context.loss.fast
        return wrong(
            f"Evaluation gets inputs of {inputs.mean:.3g} ± {inputs.std:.3g}, training of {mean:.3g} ± {std:.3g}",
            f"{difference}; validation loss {self.worst:.3g}, training loss {context.loss.fast:.3g}",
            "warning" if suffers else "info",
            where="the evaluation's data",
        )

    def _learn(self, batch: BatchSeen | None) -> None:
        if batch is not None and batch.mean is not None and batch.std:
            self.means = [*self.means, batch.mean][-KEPT:]
            self.stds = [*self.stds, batch.std][-KEPT:]
            self.samples = batch.shape[0] if batch.shape else 1

    def _difference(self, mean: float, std: float, samples: int) -> str:
        """What is different about an evaluation's batch, in words; "" where nothing is."""
        usual = float(np.median(self.stds))
        few = math.sqrt(max(self.samples / samples, 1.0))  # a smaller batch varies the more
        off = abs(mean - float(np.median(self.means)))
        spread = self.noise * few * float(np.std(self.means))
        if off > max(self.offset * usual, spread):
            return f"The means are {off / usual:.3g} standard deviations apart"
        logs = np.log(self.stds)
        factor = math.log(max(std, 1e-30)) - float(np.median(logs))
        if abs(factor) > max(math.log(self.ratio), self.noise * few * float(np.std(logs))):
            return f"A standard deviation {math.exp(factor):.3g} times the training's"
        return ""
