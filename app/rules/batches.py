"""Batches: sorted, of one class, constant, badly scaled; samples on both sides of a split."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, wrong
from trainvitals.app.rules.thresholds import Count, Positive, Share
from trainvitals.hooks.wire.observed import Observed, Targets

PAIRS: Final = 100
"""Neighbours behind a judgement of their order."""


class Classes(msgspec.Struct):
    """Labels counted over looks, where there is one a sample."""

    counts: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, targets: Targets) -> None:
        """Count a batch; at most 1,000 classes."""
        for label, count in targets.classes.items():
            if label in self.counts or len(self.counts) < 1000:
                self.counts[label] = self.counts.get(label, 0) + count

    @property
    def shares(self) -> list[float]:
        """Of each class."""
        total = sum(self.counts.values())
        return [count / total for count in self.counts.values()] if total else []


def labels_of(seen: Observed) -> Targets | None:
    """Whole-numbered labels, one for each sample of the batch; None where they are not known to be that."""
    samples = seen.batch.shape[0] if seen.batch is not None and seen.batch.shape else 0
    found = [loss.targets for loss in seen.losses] + [seen.labels]
    for targets in found:
        if targets is not None and not targets.real and targets.pairs and targets.count == samples:
            return targets
    return None


class UnshuffledData(ObservedRule):
    """Neighbours in a batch have the same label far more often than chance gives: the data are sorted.

    Formula: z of the agreement of neighbours against Σp² of the classes seen; above 6 and by a quarter of the
    pairs, with 100 pairs and more. Default:
    the largest z of 2000 shuffled runs is 3.6, sorted data reach 45 to 411 [S]. Applies to: one whole-numbered label a
    sample. Guards: labels of tokens or pixels are neighbours by nature and do not count. Guide tips: 37, 135.
    Sources: guides A to D; simulation.
    """

    id: ClassVar[str] = "unshuffled-data"
    deviations: ClassVar[Positive] = 6.0
    """Standard deviations over chance. Shuffled labels reach 3.6 in 2000 runs, sorted ones 45 and more."""
    excess: ClassVar[Share] = 0.25
    """Share of the pairs by which agreement must exceed chance: rare classes make a few agreements many deviations."""
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "Labels in random order"
    remedy: ClassVar[str] = (
        "Shuffle: DataLoader(shuffle=True), or torch.randperm over the samples once an epoch. False alarm: samplers "
        "that group classes on purpose, or a time series."
    )
    diff: ClassVar[str] = (
        "- DataLoader(data, batch_size=64)\n+ DataLoader(data, batch_size=64, shuffle=True)"
    )
    about: ClassVar[str] = "No look has shown one whole-numbered label for each sample."

    classes: Classes = msgspec.field(default_factory=Classes)
    agreeing: int = 0
    pairs: int = 0

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        targets = labels_of(seen)
        if targets is None:
            return SKIP
        self.classes.add(targets)
        self.agreeing += targets.agreeing
        self.pairs += targets.pairs
        chance = sum(share**2 for share in self.classes.shares)
        if self.pairs < PAIRS or chance >= 1:
            return FINE
        z = (self.agreeing - self.pairs * chance) / math.sqrt(self.pairs * chance * (1 - chance))
        if z <= self.deviations or self.agreeing / self.pairs < chance + self.excess:
            return FINE
        return wrong(
            f"The labels come sorted: {100 * self.agreeing / self.pairs:.0f} % of neighbours agree, "
            f"{100 * chance:.0f} % would by chance",
            f"{self.agreeing} of {self.pairs} neighbours with the same label, {z:.0f} standard deviations over chance",
            "warning",
        )


class SingleClassBatch(ObservedRule):
    """Batches that hold a single class, more often than chance gives.

    Formula: at least 3 batches of one class, and more than the 99.99 % quantile for the class shares seen (Poisson,
    mean Σ p^B over batches). Default: 72 % of batches of 32 are of one class where the majority has 99 % [S], so a
    fixed share would alarm. Applies to: one whole-numbered label a sample, two classes and more. Guards: tasks with
    one class. Guide tips: guide D, 10. Sources: guide D; simulation.
    """

    id: ClassVar[str] = "single-class-batch"
    least: ClassVar[Count] = 3
    """Batches of one class: the last, short batch of a pass, or one rare draw, is no pattern."""
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "Several classes in a batch"
    remedy: ClassVar[str] = (
        "Shuffle the data, or draw classes evenly. False alarm: batches of positives by design."
    )
    about: ClassVar[str] = "No look has shown one whole-numbered label for each sample."

    classes: Classes = msgspec.field(default_factory=Classes)
    sizes: dict[str, int] = msgspec.field(default_factory=dict)
    """How many batches of each size were seen."""
    single: int = 0

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        targets = labels_of(seen)
        if targets is None or targets.count < 4:
            return SKIP
        self.classes.add(targets)
        size = str(targets.count)
        self.sizes[size] = self.sizes.get(size, 0) + 1
        self.single += len(targets.classes) == 1
        shares = self.classes.shares
        mean = sum(
            count * sum(share ** int(size) for share in shares)
            for size, count in self.sizes.items()
        )
        if len(shares) < 2 or self.single < self.least or self.single <= _poisson_quantile(mean):
            return FINE
        looks = sum(self.sizes.values())
        return wrong(
            f"{self.single} of {looks} batches hold a single class of {len(shares)}",
            f"{self.single} batches of one class; {mean:.2g} would be chance",
            "warning",
        )


def _poisson_quantile(mean: float) -> int:
    """The smallest count that is reached or undercut with 99.99 %."""
    if mean > 200:
        return math.ceil(mean + 4 * math.sqrt(mean))
    term = total = math.exp(-mean)
    count = 0
    while total < 0.9999:
        count += 1
        term *= mean / count
        total += term
    return count


class ClassImbalance(ObservedRule):
    """Classes of very different size.

    Formula: the most frequent class has more than 10 times the labels of the rarest, over 500 labels and 5 looks.
    Always an info: whether it hurts shows in the recall of the rare classes, which is not seen. Applies to: one whole-
    numbered label a sample, 2 to 50 classes. Guards: vocabularies have more classes. Guide tips: 40, 125.
    Sources: SageMaker Debugger (10); guides.
    """

    id: ClassVar[str] = "class-imbalance"
    ratio: ClassVar[Positive] = 10.0
    """Most frequent over rarest class: SageMaker's limit. Milder differences hardly show in the recall."""
    k: ClassVar[int] = 5
    n: ClassVar[int] = 5
    expected: ClassVar[str] = "Classes of similar size"
    remedy: ClassVar[str] = (
        "Look at the recall of each class. Class weights, a weighted sampler, or a threshold of its own help."
    )
    about: ClassVar[str] = "No look has shown one whole-numbered label for each sample."

    classes: Classes = msgspec.field(default_factory=Classes)

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        targets = labels_of(seen)
        if targets is None:
            return SKIP
        self.classes.add(targets)
        counts = self.classes.counts
        if sum(counts.values()) < 500 or not 2 <= len(counts) <= 50:
            return FINE
        most, least = max(counts.values()), min(counts.values())
        if most <= self.ratio * least:
            return FINE
        label = max(counts, key=lambda key: counts[key])
        return wrong(
            f"Class {label} has {most / least:.0f} times the labels of the rarest of {len(counts)} classes",
            f"{most} against {least} of {sum(counts.values())} labels",
            "info",
        )


class InputConstant(ObservedRule):
    """Inputs without any content: all values of a batch, or of many samples, are the same.

    Formula: standard deviation 0 over the whole batch in 2 of 3 looks (critical), or more than 5 % of the samples with
    one value throughout (warning). Default: decoded images and measured rows never are. Applies to: floating-point
    inputs with two values a sample and more. Guards: zeros in sparse inputs are fine, as the deviation is judged. Guide
    tips: guide D, 1. Sources: SageMaker Debugger (AllZero); guide D.
    """

    id: ClassVar[str] = "input-constant"
    samples: ClassVar[Share] = 0.05
    """Share of the samples: an empty one now and then is in many data sets, one in twenty is a fault of reading."""
    k: ClassVar[int] = 2
    n: ClassVar[int] = 3
    expected: ClassVar[str] = "Inputs that differ within a sample and between samples"
    remedy: ClassVar[str] = (
        "Look at what the loader gives: a path that does not exist, a decoding that failed, a division of whole "
        "numbers, a mask applied twice. False alarm: samples that are all padding."
    )
    about: ClassVar[str] = "No floating-point input was seen yet."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        batch = seen.batch
        if batch is None or batch.constant is None or batch.std is None:
            return SKIP
        if batch.std == 0 and math.prod(batch.shape) > 1:
            return wrong(
                f"All inputs of a batch are {batch.mean:.3g}",
                f"Standard deviation 0 over {math.prod(batch.shape)} values",
            )
        if batch.constant > self.samples and batch.shape[0] >= 8:
            return wrong(
                f"{100 * batch.constant:.0f} % of the samples have a single value throughout",
                f"{100 * batch.constant:.0f} % of {batch.shape[0]} samples are constant",
                "warning",
            )
        return FINE


class InputScale(ObservedRule):
    """Inputs of a size that a freshly made network is not made for.

    Formula: root mean square above 10 or below 0.01, or |mean| above 5 standard deviations; 3/3 looks. Default:
    images in [0, 1] have 0.5 and 1.7, standardised ones reach ±2.7, audio 0.01 to 0.1; the classic [-1, 1] fires on
    35 of 35 normal runs (UMLAUT). Applies to: floating-point inputs of a first layer that is no norm and no
    embedding. Guards: inputs that are all 0. Guide tips: 38, 63. Sources: guides; UMLAUT; SageMaker.
    """

    id: ClassVar[str] = "input-scale"
    high: ClassVar[Positive] = 10.0
    """Root mean square. Standardised data have 1 and pictures in [0, 1] half of that; bytes have a hundred."""
    low: ClassVar[Positive] = 0.01
    """Root mean square. Quiet audio has as little; bytes divided by 255 twice have less."""
    offset: ClassVar[Positive] = 5.0
    """Mean over standard deviation. Pictures in [0, 1] have up to 1.7."""
    expected: ClassVar[str] = "Inputs of about size 1 with a mean that is not far from 0"
    remedy: ClassVar[str] = (
        "Standardise with the training set's mean and standard deviation, or divide images by 255. False alarm: a "
        "model that scales its input itself."
    )
    about: ClassVar[str] = "No floating-point input of a first layer that is no norm was seen."

    normalised: bool = False

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.facts is not None:
            self.normalised = seen.facts.normalised
        batch = seen.batch
        if batch is None or self.normalised or not batch.rms or batch.mean is None or not batch.std:
            return SKIP
        if batch.rms > self.high or batch.rms < self.low:
            return wrong(
                f"The inputs have a root mean square of {batch.rms:.3g}",
                f"Inputs from {batch.low:.3g} to {batch.high:.3g}, {batch.mean:.3g} ± {batch.std:.3g}",
                "warning",
            )
        if abs(batch.mean) > self.offset * batch.std:
            return wrong(
                f"The inputs are {batch.mean:.3g} ± {batch.std:.3g}: nearly constant beside their mean",
                f"Inputs from {batch.low:.3g} to {batch.high:.3g}",
                "warning",
            )
        return FINE


class TrainValOverlap(ObservedRule):
    """Samples that are trained on are evaluated on, too.

    Formula: share of the evaluation's samples that are in the training's data set: of one base set by index, or by
    checksum for tensors in memory up to 8 MiB. Warning above 0, critical above 1 %. Default: none should be. Applies
    to: DataLoaders over `Subset`s of one data set or `TensorDataset`s. Guards: of several evaluations the one with
    the smallest share counts, as an accuracy on training data is measured at times; samples of fewer than 8 values
    repeat by nature. Sources: DLCheck; practice of random splits.
    """

    id: ClassVar[str] = "train-val-overlap"
    leak: ClassVar[Share] = 0.01
    """Above it critical: a few duplicates hardly change a figure, a wrong split shares far more."""
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "No sample on both sides of the split"
    remedy: ClassVar[str] = (
        "Split once, by group where samples belong together, and save the indices; remove duplicates before. As it is "
        "the evaluation is too good."
    )
    about: ClassVar[str] = "No evaluation with a DataLoader whose data can be compared was seen."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.loader is None or seen.loader.shared is None:
            return SKIP
        share = seen.loader.shared
        if share <= 0:
            return FINE
        return wrong(
            f"{100 * share:.3g} % of the evaluation's samples are trained on",
            f"{100 * share:.3g} % of the samples in both data sets",
            "critical" if share > self.leak else "warning",
        )
