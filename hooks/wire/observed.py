"""What was seen of the loop itself in a step that was looked at: its loss calls, their order, its batch, its modes.

Part of a `Step` record. A server that does not know these fields leaves them out; a client that does not send them
is judged without.
"""

from typing import Literal

import msgspec


class LossCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One loss that a backward pass came from, as the autograd graph and the tensors it saved show it.

    Numbers are of the first 262,144 elements at most. A number that could not be read is None.
    """

    kind: str
    """"cross-entropy", "nll", "bce", "bce-logits", "mse", "smooth-l1", "huber", "squares" or "absolute" (written
    out by hand, or `l1_loss`), "soft-cross-entropy" (targets are probabilities, or a KL divergence)."""
    before: str = ""
    """The operation that made the prediction: "softmax", "log-softmax", "sigmoid", "tanh", "relu", … as far as
    views, casts and indexing do not count; for cross-entropy the one before its own log-softmax."""
    shape: tuple[int, ...] = ()
    """Of the prediction, before broadcasting."""
    wide: tuple[int, ...] = ()
    """Of the prediction after broadcasting against the target, where that changed it."""
    normalised: tuple[int, int] | None = None
    """Dimension and its size over which the last softmax or log-softmax was taken."""
    reduction: str = ""
    """"mean", "sum" or "none", where it is known."""
    value: float | None = None
    """Mean loss of an element, without class weights: whatever the reduction is."""
    error: float | None = None
    """Its standard error over elements."""
    low: float | None = None
    high: float | None = None
    """Smallest and largest prediction."""
    excess: float | None = None
    """"nll": median of |logsumexp| over rows, which is 0 for log-probabilities."""
    predicted: dict[str, int] = {}
    """How often each class was the likeliest, where there is one label a sample; of 4,096 samples at most. Of a
    single output "0" or "1"."""
    spread: float | None = None
    """"mse": standard deviation of the predictions."""
    targets: "Targets | None" = None


class Targets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The labels of a batch."""

    count: int = 0
    """Labels in the batch, those to be ignored among them."""
    real: bool = False
    """Whether they are real-valued."""
    ignored: int = 0
    classes: dict[str, int] = {}
    """Of whole-numbered labels: how often each was there; the 64 most frequent."""
    agreeing: int = 0
    """Neighbours in the batch with the same label, of `pairs`; only where there is one label a sample."""
    pairs: int = 0
    negative: int = 0
    """Whole-numbered labels below 0 that are not to be ignored."""
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    outside_unit: float | None = None
    """Share of the targets outside [0, 1]."""
    outside_tanh: float | None = None
    """Share of the targets outside [-1, 1]."""
    rows_one_hot: float | None = None
    """Share of rows of zeros and ones whose sum is 1; None where the targets are no rows of zeros and ones."""


class BatchSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The inputs of the first call of the watched model in a step."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    digest: str = ""
    """Checksum of the inputs' values, at most 64 KiB of each; "" where they are not in host memory."""
    owner: int = 0
    """Rows of the tensor that the inputs are a view of; 0 when they are none."""
    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    low: float | None = None
    high: float | None = None
    constant: float | None = None
    """Share of samples whose values are all the same."""


class Modes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dropout and batch norm in the forward pass of a training step: how many layers were in which mode."""

    training: int = 0
    evaluating: int = 0
    dropout_evaluating: int = 0
    """Of those in evaluation mode, the dropout layers that would drop something."""
    affine_evaluating: int = 0
    """Of those in evaluation mode, the batch norms with trainable weights."""
    norms_training: int = 0
    """Batch norms in training mode."""
    flat_norms_training: int = 0
    """Of them, those that have only the samples to average over (`BatchNorm1d`)."""
    names: list[str] = []
    """Layers in evaluation mode, at most 20."""
    frozen_moving: list[str] = []
    """Batch norms in training mode whose weights, and all others, are frozen; at most 20."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Forward passes of a watched model without gradients, since the run began."""

    phases: int = 0
    """Spans between two steps with at least one of them."""
    forwards: int = 0
    samples: int = 0
    """In the largest of them."""
    training: int = 0
    """Of them, those with dropout or batch norm in training mode."""
    training_phases: int = 0
    names: list[str] = []
    """Layers that were, at most 20."""
    inputs: BatchSeen | None = None
    """The first batch of the last span, where it was measured: in the first eight spans, then ever more seldom."""


class LoaderSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the training's own DataLoader is used, as far as it has one."""

    batches: int = 0
    """Of one pass over it; 0 when it does not say."""
    restarts: int = 0
    """Steps, one after the other, each of which began a new pass."""
    sequential: bool = False
    same_order: int = 0
    """Passes, one after the other, that began with the very batch of the pass before."""
    began: int = -1
    """Step at which the pass under way began; -1 where a pass has fewer than 100 batches."""
    shared: float | None = None
    """Share of the samples of an evaluation's data set that are in the training's; None where it is not known."""
    workers: int = -1
    """Processes that prepare its batches; -1 where it is not known."""
    in_memory: bool = False
    """Whether its data are tensors in memory (`TensorDataset`, or a part of one)."""


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A parameter group of an optimizer."""

    optimizer: str
    """Class name."""
    rate: float = 0.0
    decay: float = 0.0
    momentum: float = 0.0
    eps: float = 0.0
    parameters: int = 0
    """Tensors in it."""
    watched: int = 0
    """Of them, those of the watched models."""
    small: int = 0
    """Of the watched ones, biases, norm gains and embeddings."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The models and optimizers, as they are when the first optimizer is about to step."""

    groups: list[GroupFacts] = []
    elements: int = 0
    frozen: int = 0
    """Of all elements of the watched models, those that are not trained."""
    frozen_names: list[str] = []
    frozen_random: list[str] = []
    """Frozen weights of linear and convolution layers behind a trained one that are at PyTorch's random start."""
    stale: list[str] = []
    """Watched parameters that no optimizer holds, while one holds a tensor of the same shape from elsewhere."""
    stale_share: float = 0.0
    """Their share of the trainable elements."""
    symmetric: list[str] = []
    """Weights whose units all start the same; zeros at the end of a model do not count."""
    mode: str = ""
    """How the training is: "scratch", "fine-tuning" or "adapter"."""
    normalised: bool = False
    """Whether the first layer with weights is a norm or an embedding."""
    has_norm: bool = False
    dtype: str = ""
    """Of most of the parameters' elements."""
    deep_sigmoids: list[str] = []
    """Sigmoid and tanh layers in a row without norm between, where there are 4 or more."""
    bare_pairs: list[str] = []
    """Linear or convolution layers that directly follow one in a `Sequential`: "first → second", with "(convolution)"
    where it is not two linear ones. Factorisations and grouped convolutions are left out."""
    biased_before_norm: list[str] = []
    """Layers with a bias directly before a batch norm."""
    dropout: float = 0.0
    """The largest dropout probability."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one preflight check."""

    check: str
    outcome: Literal["pass", "info", "warning", "critical", "skipped"]
    seen: str
    """What was measured; for a skipped check why it does not apply."""
    expected: str = ""
    remedy: str = ""
    layers: list[str] = []
    seconds: float = 0.0


class Peer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one of several ranks that are parallel in their data has at a step of which all of them tell."""

    first: int = 0
    """The lowest rank of the group that it belongs to."""
    ranks: int = 0
    """How many ranks the group has."""
    batch: str = ""
    """Checksum of the inputs of the model; "" where there are none to check."""
    weights: bytes = b""
    """uint32, little-endian: checksums of parts of the trainable weights, as they are in the forward pass."""
    layers: list[str] = []
    """The first layer of each of these parts; told when it changes."""
    device: str = ""
    """What computes the weights."""
    why: str = ""
    """Why the weights are not told."""


class Observed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one look has seen. Everything is optional."""

    losses: list[LossCall] = []
    root: float | None = None
    """The number that the (first) backward pass began with: the loss as it is minimised, scaled where it is."""
    order: list[str] = []
    """What happened since the end of the step before, in order: "f" forward, "b" backward, "g" `autograd.grad`, "c"
    clipping of norms, "x" scaling of a loss, "u" unscaling, "z<i>" zero_grad and "s<i>" step of optimizer i, "l" a
    scheduler's step. At most 64, repetitions of "f" and "l" left out."""
    grads: int = -1
    """Watched parameters with a gradient when the counting optimizer is about to step; -1: not counted."""
    unheld: list[str] | None = None
    """Watched parameters with a gradient that no optimizer holds, at most 50; None: not looked for."""
    ungiven: list[str] | None = None
    """Trainable parameters of the only optimizer that have no gradient at its step, at most 50; None: not looked for,
    as there are several optimizers."""
    unreached: bool = False
    """Whether a backward pass of the step reached no watched parameter at all."""
    batch: BatchSeen | None = None
    output_dtype: str = ""
    """Of the model's output."""
    output_simplex: float | None = None
    """Share of the rows of the model's output that are probabilities: no value below 0, sum 1."""
    labels: Targets | None = None
    """Told by `tv.batch`."""
    modes: Modes | None = None
    evaluation: Evaluation | None = None
    loader: LoaderSeen | None = None
    peer: Peer | None = None
    facts: Facts | None = None
    preflight: list[Checked] = []
