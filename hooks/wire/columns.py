"""The statistics that a group's columns hold, declared once for both sides.

A column's key travels in `Layout.columns`; the pages take title, unit and scale from here, and show a key
they have never heard of under its own name.
"""

from typing import Literal

import msgspec

Scale = Literal["linear", "log"]


class Column(msgspec.Struct, frozen=True):
    """One statistic: its key, how people call it, its unit ("" for a plain number) and natural scale."""

    key: str
    title: str
    unit: str = ""
    scale: Scale = "log"
    nan_is_missing: bool = False
    """Whether a NaN only says that there is no such number here, and is sent as "not recorded"."""


ACTIVATION = (
    Column("mean", "Activation mean", scale="linear"),
    Column("std", "Activation std"),
    Column("rms", "Activation RMS"),
    Column("absmax", "Activation abs-max"),
    Column("zero_fraction", "Zero fraction", "fraction", "linear"),
    Column("nonfinite", "Non-finite values", "count"),
    # Share of units that were never > 0 in the last `dead_positions` samples·positions; not
    # recorded where the layer has no flat zero side (only ReLU-like modules have one).
    Column("dead_fraction", "Dead units", "fraction", "linear", nan_is_missing=True),
    Column("dead_positions", "Samples behind dead units", "count", nan_is_missing=True),
    # Share of units of which more than 95 % of the samples·positions lie in one tail: |tanh| > 0.97, a sigmoid
    # below 0.02 or above 0.98; not recorded for other layers.
    Column("saturated_fraction", "Saturated units", "fraction", "linear", nan_is_missing=True),
    # Variance between samples (dimension 0) over the mean square of the output: 0 when the layer gives the same
    # for every sample; not recorded for a single sample or a layer of zeros.
    Column("batch_variation", "Variation between samples", nan_is_missing=True),
)
"""Columns of an "activation" group: one row a layer, taken from the layer's output."""

PARAMETER = (
    Column("weight_rms", "Weight RMS"),
    Column("weight_std", "Weight std"),
    Column("weight_absmax", "Weight abs-max"),
    Column("weight_nonfinite", "Non-finite weights", "count"),
    Column("grad_rms", "Gradient RMS"),
    Column("grad_std", "Gradient std"),
    Column("grad_absmax", "Gradient abs-max"),
    Column("grad_nonfinite", "Non-finite gradients", "count"),
    # RMS(W after - W before) / RMS(W before) over one optimizer step; not recorded when the
    # parameter was not stepped, was zero or was not finite.
    Column("update_ratio", "Update ratio", nan_is_missing=True),
    # 1.0 when not a single element changed, bit for bit, over the optimizer step; else 0.0. Of a large parameter
    # those of a sub-sample are compared.
    Column("unchanged", "Unchanged", "", "linear"),
    # Share of elements that did not change, bit for bit: with parameters in bfloat16 most updates are lost.
    Column("unchanged_fraction", "Unchanged elements", "fraction", "linear"),
    # RMS of the Adam update in units of the learning rate, m / (sqrt(v) + eps) after bias correction, without
    # weight decay: 1 at the first step, 0.23 for pure noise, 1 for a steady gradient. Matrices under Adam and AdamW.
    Column("adam_update_factor", "Adam update factor", nan_is_missing=True),
    # Share of elements with sqrt(v) < 10 eps, whose update eps makes smaller. Matrices under Adam and AdamW.
    Column(
        "adam_eps_fraction", "Elements ruled by Adam eps", "fraction", "linear", nan_is_missing=True
    ),
)
"""Columns of a "parameter" group: one row a parameter. Gradients are as the optimizer gets them."""

MISSING_BITS = 0x7FC0_DEAD
"""float32 bit pattern (a quiet NaN) for "not recorded at this step", apart from a real NaN."""

SCALARS = (
    Column("tv/grad_norm", "Global gradient norm"),
    Column("tv/step_time", "Step time", "s"),
    Column("tv/data_wait", "Data wait", "s", "linear"),
    # Share of the step time that monitoring took, 0 to 1.
    Column("tv/overhead", "Monitoring share", "fraction", "linear"),
    Column("tv/loss", "Loss of the watched criterion"),
    # 1.0 when gradients of the step before were still there at every backward of this step, else 0.0.
    Column("tv/grad_carried", "Gradient carried over", "", "linear"),
    # Cosine between the gradients and the mean of those before that the optimizer keeps: below 0 they turn back.
    Column("tv/grad_along", "Gradient along its past", "", "linear"),
    # Of a `GradScaler`, whenever it changes: each skipped step halves it.
    Column("tv/amp_scale", "Gradient scale"),
    # Labels seen so far by `tv.batch` or the criterion: entropy of the classes in nats, their number, how
    # many labels were counted; for real-valued targets their variance.
    Column("tv/label_entropy", "Label entropy", "nats", "linear"),
    Column("tv/label_classes", "Label classes", "count", "linear"),
    Column("tv/label_count", "Labels seen", "count", "linear"),
    Column("tv/label_variance", "Label variance"),
    # Of the process and its machine, every few seconds, at the last step that was complete.
    # Share of the time that the training waited inside DataLoader iterators since the last one.
    Column("tv/system/data_wait", "Waiting for data", "fraction", "linear"),
    Column("tv/system/cpu", "CPU of the process", "cores", "linear"),
    Column("tv/system/cpu_machine", "CPU of the machine", "fraction", "linear"),
    # Resident memory; where the system does not tell it (macOS), its peak.
    Column("tv/system/memory", "Memory of the process", "GiB", "linear"),
    Column("tv/system/memory_machine", "Memory of the machine in use", "fraction", "linear"),
    # Of each device, by its index: `tv/system/gpu_memory/0`. What tensors hold, and what PyTorch keeps for them.
    Column("tv/system/gpu_memory", "GPU memory in tensors", "GiB", "linear"),
    Column("tv/system/gpu_reserved", "GPU memory reserved", "GiB", "linear"),
    Column("tv/system/gpu_busy", "GPU busy", "fraction", "linear"),
)
"""Scalars that the hooks record themselves; also `tv/lr/<group index>`. The prefix `tv/` is reserved."""

RESERVED_PREFIX = "tv/"
