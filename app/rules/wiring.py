"""Models and optimizers as they are put together: what does not belong to the optimizer, does not learn, or is odd."""

from typing import ClassVar, Final

from trainvitals.app.rules.base import listing
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Severity
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, wrong
from trainvitals.app.rules.thresholds import Positive, Share
from trainvitals.hooks.wire.observed import Facts, Observed

ADAM: Final = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")
SETTLED: Final = 100
"""Steps after which a warm-up has left the smallest rates."""


class FactsRule(ObservedRule):
    """A rule about what is known before the first step: once, and at once."""

    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    about: ClassVar[str] = "No optimizer has stepped yet."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        return SKIP if seen.facts is None else self.judge(seen.facts)

    def judge(self, facts: Facts) -> Looked:
        """Judge the models and optimizers. Every rule of this kind has its own."""
        raise NotImplementedError


def owners(names: list[str]) -> list[str]:
    """Layers of parameters, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


class OptimizerStaleParams(FactsRule):
    """The optimizer holds the parameters of another model than the one that is trained.

    Formula: watched parameters that no optimizer holds, while one holds tensors from elsewhere in exactly their shapes.
    Default: deterministic. Applies to: all optimizers. Guards: a part of the model that is left out has no double; a
    second optimizer's other model has other shapes. Sources: TrainCheck, case PyTorch 104336.
    """

    id: ClassVar[str] = "optimizer-stale-params"
    expected: ClassVar[str] = "An optimizer that holds the parameters of the watched model"
    remedy: ClassVar[str] = (
        "Make the optimizer after the model is final: after loading, copying, moving or wrapping it, from "
        "model.parameters() of that very object."
    )
    diff: ClassVar[str] = "  model = build().to(device)\n+ optimizer = AdamW(model.parameters())"

    def judge(self, facts: Facts) -> Looked:
        if not facts.stale:
            return FINE
        return wrong(
            f"The optimizer holds a copy of {listing(owners(facts.stale))}, not the parameters of the model",
            f"{100 * facts.stale_share:.3g} % of the trainable weights are in no optimizer, which has others of the "
            "same shapes",
            layers=owners(facts.stale),
        )


class UnintendedFreeze(FactsRule):
    """A layer is frozen in the random state in which it was made.

    Formula: a frozen weight of a linear or convolution layer behind a trained one lies within ±1/√fan-in, fills it to
    the edge and has the mean square of PyTorch's uniform start (within 3 standard errors): nobody trained it. A
    warning; other frozen weights are an info with their share. Default: a trained weight leaves that box. Applies to:
    models with frozen and trained parameters. Guards: a frozen first part is how fine-tuning looks, also of a
    stand-in at random; adapters are left out. False alarm: random features on purpose. Guide tips: guide D, 23.
    """

    id: ClassVar[str] = "unintended-freeze"
    expected: ClassVar[str] = "Frozen layers that were trained before"
    remedy: ClassVar[str] = (
        "Set requires_grad_(True) for them, or load their trained weights before freezing. False alarm: random "
        "features that are meant to stay."
    )

    def judge(self, facts: Facts) -> Looked:
        if not facts.frozen or facts.frozen >= facts.elements:
            return FINE
        share = 100 * facts.frozen / facts.elements
        untrained = facts.frozen_random if facts.mode != "adapter" else []
        if untrained:
            return wrong(
                f"{listing(owners(untrained))}: frozen as it was made, at random",
                f"{len(untrained)} frozen weights at PyTorch's random start; {share:.3g} % of all weights are frozen",
                "warning",
                layers=owners(untrained),
            )
        return wrong(
            f"{share:.3g} % of the weights are frozen",
            f"Frozen: {listing(owners(facts.frozen_names))}",
            "info",
            layers=owners(facts.frozen_names),
        )


class WeightInitSymmetric(FactsRule):
    """All units of a layer start the same, and so stay the same for ever.

    Formula: the first 16 rows of a weight are equal within 1e-6 of its largest element, at the first step. A weight of
    zeros counts only where the one before or after it is zero, too; the last weight only then. Default: random starts
    never are. Applies to: weights with two units and two inputs or more. Guards: heads, residual branches and
    adapters that start at 0 learn. Guide tips: 12, 13. Sources: guide A; NeuraLint.
    """

    id: ClassVar[str] = "weight-init-symmetric"
    expected: ClassVar[str] = "Units that start differently"
    remedy: ClassVar[str] = (
        "Use a random start: kaiming_normal_, xavier_uniform_, or PyTorch's own. Constants are for biases and gains."
    )
    diff: ClassVar[str] = (
        "- nn.init.constant_(layer.weight, 0.1)\n+ nn.init.kaiming_normal_(layer.weight)"
    )

    def judge(self, facts: Facts) -> Looked:
        if not facts.symmetric:
            return FINE
        return wrong(
            f"{listing(owners(facts.symmetric))}: all units start with the same weights",
            f"{len(facts.symmetric)} weights with equal rows at the first step",
            layers=owners(facts.symmetric),
        )


class LrOutOfFamilyRange(ObservedRule):
    """A learning rate far outside what its optimizer is used with.

    Formula: the highest rate so far above 1 for SGD, above 0.1 for the Adam family, or below 1e-7 after 100 steps:
    warning. SGD above 0.5 and Adam above 0.01 are an info, as small models train well there. Default: UMLAUT's limits
    are 1e-2 and 1e-7. Applies to: SGD and the Adam family. Guards: others (Adadelta, Prodigy, LBFGS, Lion, Muon) have
    scales of their own; a rate of 0 is a schedule's. Guide tips: 4, 5, 142. Sources: UMLAUT; guide C.
    """

    id: ClassVar[str] = "lr-out-of-family-range"
    sgd: ClassVar[Positive] = 1.0
    """Warning for SGD: ten times the 0.1 of the classic recipes."""
    sgd_note: ClassVar[Positive] = 0.5
    """Info for SGD: small models train well up to here."""
    adam: ClassVar[Positive] = 0.1
    """Warning for the Adam family: every step moves each weight by about the rate, and weights are smaller."""
    adam_note: ClassVar[Positive] = 0.01
    """Info for the Adam family: ten times the usual 1e-3, where small models still train well."""
    lowest: ClassVar[Positive] = 1e-7
    """Warning: UMLAUT's lower limit, a hundredth of what large models are fine-tuned with."""
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "1e-7 to 1 for SGD, 1e-7 to 0.01 for the Adam family"
    remedy: ClassVar[str] = (
        "Begin with 1e-3 for Adam and 0.1 with momentum 0.9 for SGD, and change it tenfold either way."
    )
    about: ClassVar[str] = "No optimizer of the families SGD and Adam has stepped yet."

    family: str = ""

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.facts is not None and seen.facts.groups:
            kinds = {group.optimizer for group in seen.facts.groups}
            self.family = kinds.pop() if len(kinds) == 1 else ""
        top = context.rate_top
        if self.family not in (*ADAM, "SGD") or not top:
            return SKIP
        usual, most = (
            (self.sgd_note, self.sgd) if self.family == "SGD" else (self.adam_note, self.adam)
        )
        tiny = top < self.lowest and context.steps > SETTLED
        if top <= usual and not tiny:
            return FINE
        return wrong(
            f"A learning rate of {top:.3g} with {self.family}",
            f"The highest rate so far is {top:.3g}",
            "warning" if tiny or top > most else "info",
        )


class NoNonlinearity(FactsRule):
    """Two linear layers directly after one another: together they are one.

    Formula: in a `Sequential`, a Linear or convolution follows another with nothing between but dropout, flatten or
    identity. Linear pairs are a warning, others an info. Default: deterministic, as a `Sequential` calls its parts in
    order. Applies to: `nn.Sequential`. Guards: a factorisation (the size between them is smaller than both others) and
    grouped convolutions are meant. Functions between layers of a model of one's own are not judged.
    Sources: UMLAUT; NeuraLint.
    """

    id: ClassVar[str] = "no-nonlinearity"
    expected: ClassVar[str] = "An activation between two linear layers"
    remedy: ClassVar[str] = (
        "Put nn.ReLU() or nn.GELU() between them. False alarm: a product of matrices on purpose."
    )

    def judge(self, facts: Facts) -> Looked:
        if not facts.bare_pairs:
            return FINE
        linear = [pair for pair in facts.bare_pairs if not pair.endswith("(convolution)")]
        shown = linear or facts.bare_pairs
        severity: Severity = "warning" if linear else "info"
        layers = [shown[0].split(" → ")[0]]
        return wrong(
            f"No activation between {shown[0]}"
            + (f" and {len(shown) - 1} more pairs" if len(shown) > 1 else ""),
            "; ".join(shown[:5]),
            severity,
            layers=layers,
        )


class DeepSigmoidStack(FactsRule):
    """Four sigmoid or tanh layers and more in a row, without a norm between them.

    Always an info: tanh stacks train well where they are scaled right (PINNs), and where gradients do vanish
    `gradient-vanishing-depth` says so. Applies to: `nn.Sequential`. Guide tips: 20, 59. Sources: guides A and B.
    """

    id: ClassVar[str] = "deep-sigmoid-stack"
    expected: ClassVar[str] = "ReLU, GELU or norm layers in deep stacks"
    remedy: ClassVar[str] = (
        "ReLU or GELU with He initialisation, norm layers, or residual connections."
    )

    def judge(self, facts: Facts) -> Looked:
        names = facts.deep_sigmoids
        if not names:
            return FINE
        return wrong(
            f"{len(names)} sigmoid or tanh layers in a row: {listing(names)}",
            f"{len(names)} squashing layers without a norm between",
            "info",
            layers=names,
        )


class WeightDecayOnNormBias(FactsRule):
    """Weight decay on biases, norm gains or embeddings.

    Always an info: many good recipes do it, and the gain of not doing it is small. Applies to: groups with a weight
    decay above 0. Sources: torch-audit; recipes of language models.
    """

    id: ClassVar[str] = "weight-decay-on-norm-bias"
    expected: ClassVar[str] = "Weight decay on weight matrices only"
    remedy: ClassVar[str] = (
        "Two parameter groups: weight_decay=0 for tensors with one dimension and for embeddings."
    )

    def judge(self, facts: Facts) -> Looked:
        small = sum(group.small for group in facts.groups if group.decay > 0)
        if not small:
            return FINE
        return wrong(
            f"Weight decay on {small} biases, norm gains or embeddings",
            f"{small} parameters",
            "info",
        )


class AdamWithL2(FactsRule):
    """Adam's own weight decay, which is divided by the size of the gradients.

    Always an info: it is intended at times. Applies to: `Adam` with a weight decay above 0.
    Sources: 1711.05101 (decoupled weight decay); torch-audit.
    """

    id: ClassVar[str] = "adam-with-l2"
    expected: ClassVar[str] = "Decoupled weight decay (AdamW)"
    remedy: ClassVar[str] = "Use AdamW: there the decay does not depend on the gradients."
    diff: ClassVar[str] = (
        "- Adam(model.parameters(), weight_decay=0.01)\n+ AdamW(model.parameters(), weight_decay=0.01)"
    )

    def judge(self, facts: Facts) -> Looked:
        decays = [
            group.decay for group in facts.groups if group.optimizer == "Adam" and group.decay > 0
        ]
        if not decays:
            return FINE
        return wrong(
            f"Adam with a coupled weight decay of {max(decays):.3g}", "weight_decay of Adam", "info"
        )


class BiasBeforeNorm(FactsRule):
    """A bias directly before a batch norm, which subtracts it again.

    Always an info: it costs a little and harms nothing. Applies to: `nn.Sequential`. Sources: NeuraLint; torch-audit.
    """

    id: ClassVar[str] = "bias-before-norm"
    expected: ClassVar[str] = "bias=False before a batch norm"
    remedy: ClassVar[str] = "Make the layer with bias=False."

    def judge(self, facts: Facts) -> Looked:
        names = facts.biased_before_norm
        if not names:
            return FINE
        return wrong(
            f"A bias before a batch norm has no effect: {listing(names)}",
            f"{len(names)} layers",
            "info",
            layers=names,
        )


class DropoutTooHigh(FactsRule):
    """Dropout of more than half of the values.

    Always an info: recommenders drop more of their inputs on purpose. Guide tips: 46. Sources: UMLAUT; guide A.
    """

    id: ClassVar[str] = "dropout-too-high"
    most: ClassVar[Share] = 0.5
    """The highest probability of common recipes, for wide layers before the output."""
    expected: ClassVar[str] = "Dropout of about half the values at most"
    remedy: ClassVar[str] = "Lower it to 0.1 to 0.5 while the training loss is still high."

    def judge(self, facts: Facts) -> Looked:
        if facts.dropout <= self.most:
            return FINE
        return wrong(
            f"Dropout of {100 * facts.dropout:.0f} %",
            "The largest probability of the model",
            "info",
        )
