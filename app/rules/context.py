"""What every rule may know about a run so far: its layers and their roles, its loss, its rates."""

import copy
import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.hooks.wire.codec import unpack_floats
from trainvitals.hooks.wire.records import End, Layout, Row, Start, Step

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOSS_NAMES: Final = ("train/loss", "loss", "train_loss", "tv/loss")
NOT_TRAINING: Final = ("val", "valid", "eval", "test")
LORA: Final = "lora_"
TOKENS: Final = ("pos", "token", "query", "embed")
"""Learned vectors that are looked up or added, under names in common use."""


Role = Literal["matrix", "head", "other"]
"""What a parameter is to the rules: a weight that turns one vector into another, that of a last layer, or any other."""
NO_ROLES: Final[Mapping[str, Role]] = {}


class Group:
    """A layout with its rows sorted into roles. Masks have shape `(rows,)`."""

    def __init__(self, layout: Layout, roles: Mapping[str, Role] = NO_ROLES) -> None:
        """`roles`: globs of layers or parameters whose role is said, not inferred; the first that fits counts."""
        rows = layout.rows
        self.layout = layout
        self.rows: list[Row] = rows
        self.columns = {name: index for index, name in enumerate(layout.columns)}
        self.trainable = _mask(row.trainable for row in rows)
        self.in_optimizer = _mask(row.in_optimizer for row in rows)
        self.elements: Floats = np.array([math.prod(row.shape) for row in rows], dtype=np.float64)
        # A weight that turns one vector into another: what update ratios and slopes are about.
        self.matrix = self.trainable & _mask(
            len(row.shape) >= 2
            and bool(row.layer)  # a parameter of the model itself: a position, a class token
            and not row.type.startswith("Embedding")
            and LORA not in row.name
            and not any(word in row.name.rsplit(".", 1)[-1].lower() for word in TOKENS)
            for row in rows
        )
        self.head = self._heads()
        self._follow(roles)
        held = self.trainable & self.in_optimizer
        self.head_only = bool(held.any() and not (held & ~self.head).any())
        """Whether the optimizer holds nothing but the last layer: transfer learning, most likely meant so."""
        self.fan_in: Floats = np.array(
            [max(1, math.prod(row.shape[1:])) for row in rows], dtype=np.float64
        )

    def _follow(self, roles: Mapping[str, Role]) -> None:
        """Take the roles that are said. Where a head is said, none is inferred."""
        if not roles:
            return
        said = [_said(row, roles) for row in self.rows]
        heads = _mask(role == "head" for role in said)
        self.head = heads if heads.any() else self.head & _mask(role is None for role in said)
        unsaid = _mask(role is None for role in said)
        self.matrix = (self.matrix & unsaid) | (
            self.trainable & _mask(role in ("matrix", "head") for role in said)
        )

    def _heads(self) -> Mask:
        """The rows of each watched model's last layer with a weight matrix."""
        last: dict[str, str] = {}
        for row in self.rows:
            if len(row.shape) >= 2:
                last[_model(row.name)] = row.layer
        return _mask(last.get(_model(row.name)) == row.layer for row in self.rows)

    def part(self, keep: Mask) -> "Group":
        """The rows in `keep`, in the roles that they have in the whole."""
        part = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(part, name, value[keep])
        part.rows = [self.rows[index] for index in np.flatnonzero(keep)]
        part.layout = msgspec.structs.replace(self.layout, rows=part.rows)
        return part

    def names(self, mask: Mask) -> list[str]:
        """Names of the rows in `mask`, in forward order."""
        return [self.rows[index].name for index in np.flatnonzero(mask)]

    def layers(self, mask: Mask) -> list[str]:
        """Layers of the rows in `mask`, in forward order, each once."""
        return list(dict.fromkeys(self.rows[index].layer for index in np.flatnonzero(mask)))


def _said(row: Row, roles: Mapping[str, Role]) -> Role | None:
    fitting = (
        role
        for glob, role in roles.items()
        if fnmatchcase(row.name, glob) or fnmatchcase(row.layer, glob)
    )
    return next(fitting, None)


def _mask(flags: Iterable[bool]) -> Mask:
    return np.fromiter(flags, dtype=np.bool_)


def _model(name: str) -> str:
    first = name.split(".", 1)[0]
    return first if first.startswith("model") and first[5:].isdigit() else ""


class Table:
    """A group's statistics at one step."""

    def __init__(self, group: Group, values: bytes) -> None:
        self.group = group
        shape = len(group.rows), len(group.columns)
        self._values = unpack_floats(values, *shape).astype(np.float64)

    def part(self, group: Group, keep: Mask) -> "Table":
        """The rows in `keep`; `group` is what `Group.part` made of its own."""
        part = copy.copy(self)
        part.group, part._values = group, self._values[keep]
        return part

    def column(self, key: str) -> Floats:
        """Shape `(rows,)`, the caller's own; NaN where nothing was recorded, all NaN for an unknown column."""
        index = self.group.columns.get(key)
        if index is None:
            return np.full(len(self.group.rows), math.nan)
        return self._values[:, index].copy()


class StepView:
    """One step record of rank 0, as rules see it."""

    def __init__(
        self, record: Step, loss: float | None, activations: list[Table], parameters: list[Table]
    ) -> None:
        self.record = record
        self.step = record.step
        self.scalars = record.scalars
        self.loss = loss
        """The training loss, when this record holds it; may be non-finite."""
        self.observed = record.observed
        """What the hooks saw of the loop, when they looked at this step."""
        self.activations = activations
        self.parameters = parameters


class Loss(msgspec.Struct):
    """Running view of the training loss; non-finite values are left out of the averages."""

    name: str = ""
    count: int = 0
    first_step: int = -1
    initial: float = math.nan
    """Mean of the first 5 values."""
    fast: float = math.nan
    """Average over about the last 10 values: plain over the first 10, then exponential."""
    slow: float = math.nan
    """The same over about 50 values."""
    best: float = math.inf
    """The lowest that `slow` has been."""
    last: float = math.nan
    jump: float = 0.0
    """Mean size of the change from one value to the next, averaged like `slow`."""
    calm_jump: float = 0.0
    """The same when `slow` was at its best: what the loss varied by before it rose."""

    def add(self, step: int, value: float) -> None:
        """Take the loss of a step."""
        if not math.isfinite(value):
            return
        self.count += 1
        if self.count == 1:
            self.first_step = step
            self.initial = self.fast = self.slow = self.last = value
        if 1 < self.count <= 5:
            self.initial += (value - self.initial) / self.count
        self.fast += (value - self.fast) / min(self.count, 10)
        self.slow += (value - self.slow) / min(self.count, 50)
        self.jump += (abs(value - self.last) - self.jump) / min(self.count, 50)
        self.last = value
        if self.slow < self.best:
            self.best, self.calm_jump = self.slow, self.jump

    @property
    def flat(self) -> bool:
        """Whether 100 losses and more have brought it down by less than a twentieth."""
        return self.count >= 100 and self.slow > self.initial - 0.05 * abs(self.initial)

    @property
    def worse(self) -> bool:
        """Whether it has given back half of its fall, by more than values next to each other differ.

        A loss below 0 has no floor that it should stay near (that of a policy gradient returns to 0 as the policy
        settles): it has to be above its start.
        """
        level = self.best if self.best >= 0 else self.initial
        return self.regained > 0.5 and self.fast - level > 2 * self.calm_jump

    @property
    def regained(self) -> float:
        """How much of its fall the loss has given back; 1 is all, more is above the start.

        0 while there is none, and at most 0 at a new best. NaN before the first value.
        """
        if not self.count:
            return math.nan
        fall = max(self.initial - self.best, 0.1 * abs(self.initial), 1e-12)
        return (self.fast - self.best) / fall


def is_training_loss(name: str) -> bool:
    """Whether a scalar of this name may be the training loss."""
    if name in LOSS_NAMES:
        return True
    if name.startswith("tv/"):
        return False
    return name.endswith(("loss", "loss_step")) and not name.lower().startswith(NOT_TRAINING)


def _preference(name: str) -> int:
    return LOSS_NAMES.index(name) if name in LOSS_NAMES else len(LOSS_NAMES)


class Context(msgspec.Struct):
    """The run as rank 0 of its latest attempt has told it so far."""

    attempt: str = ""
    project: str = ""
    time: float = 0.0
    """Of the newest record of any rank, Unix seconds by the clocks of the training machines."""
    tags: list[str] = msgspec.field(default_factory=list)
    layouts: dict[int, Layout] = msgspec.field(default_factory=dict)
    first_step: int = -1
    last_step: int = -1
    records: int = 0
    """Step records so far."""
    ended: bool = False
    message: str = ""
    """What the process said when it ended."""
    loss: Loss = msgspec.field(default_factory=Loss)
    loss_names: dict[str, int] = msgspec.field(default_factory=dict)
    """Records that held each candidate for the training loss, at most 16 names."""
    rates: dict[str, float] = msgspec.field(default_factory=dict)
    """Latest learning rate of each `tv/lr/<i>`."""
    rate_top: float = 0.0
    """The highest learning rate so far."""
    rate_before: float = 0.0
    """What it was before its last rise."""
    rate_top_step: int = -1
    """The last step at which the learning rate was still rising: the end of a warm-up."""
    rate_seen: int = -1
    """The last step whose record held a learning rate; not every one does."""
    rate_gap: int = 0
    """Steps between the two records that show the last rise."""
    labels: dict[str, float] = msgspec.field(default_factory=dict)
    """Latest `tv/label_*`, without the prefix."""
    last_width: int = 0
    """Outputs of the last Linear layer, 0 when there is none."""
    attention: bool = False
    several_models: bool = False
    """Whether several models are watched: a game between them has no loss that must fall."""

    def start(self, record: Start) -> None:
        """A process life begins."""
        self.project = record.project
        self.tags = list(record.tags)
        self.ended, self.message = False, ""

    def layout(self, record: Layout) -> None:
        """Rows of a group are named, or named anew."""
        self.layouts[record.group] = record
        self.several_models |= any(_model(row.name) for row in record.rows)
        if record.kind == "activation":
            widths = [row.shape[-1] for row in record.rows if row.type == "Linear" and row.shape]
            self.last_width = widths[-1] if widths else self.last_width
            self.attention |= any("Attention" in row.type for row in record.rows)

    def end(self, record: End) -> None:
        """The process ended in good order."""
        self.ended, self.message = True, record.message

    def step(self, record: Step) -> float | None:
        """Take a step record; the training loss in it, if any."""
        self.records += 1
        if self.first_step < 0:
            self.first_step = record.step
        self.last_step = max(self.last_step, record.step)
        for name, value in record.scalars.items():
            if name.startswith("tv/lr/") and len(self.rates) < 64:
                self.rates[name] = value
            elif name.startswith("tv/label_"):
                self.labels[name.removeprefix("tv/label_")] = value
        top = max(self.rates.values(), default=0.0)
        if top > self.rate_top * 1.000001:
            self.rate_before, self.rate_top, self.rate_top_step = self.rate_top, top, record.step
            self.rate_gap = record.step - self.rate_seen
        if any(name.startswith("tv/lr/") for name in record.scalars):
            self.rate_seen = record.step
        self._choose_loss(record.scalars)
        loss = record.scalars.get(self.loss.name)
        if loss is not None:
            self.loss.add(record.step, loss)
        return loss

    def _choose_loss(self, scalars: dict[str, float]) -> None:
        """Settle which scalar is the training loss.

        The first of `LOSS_NAMES`, then any other name, that was logged at least half as often as
        the one logged most: a loss printed every 100 steps loses against the hooks' own.
        """
        names = self.loss_names
        for name in filter(is_training_loss, scalars):
            if name in names or len(names) < 16:
                names[name] = names.get(name, 0) + 1
        if not names:
            return
        most = max(names.values())
        often = [name for name, count in names.items() if 2 * count >= most]
        chosen = min(often, key=lambda name: (_preference(name), name))
        if chosen != self.loss.name:
            self.loss = Loss(name=chosen)

    @property
    def warm_up_end(self) -> int:
        """The last step at which the learning rate rose; the first step when it never did."""
        return max(self.rate_top_step, self.first_step)

    @property
    def steps(self) -> int:
        """Steps since the first one seen."""
        return self.last_step - self.first_step + 1 if self.records else 0
