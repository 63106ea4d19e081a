"""Which finding explains which: causes come first, their consequences stay visible under them."""

from typing import Final

import msgspec

from trainvitals.app.rules.finding import SEVERITIES, Finding

NONFINITE: Final = ("nonfinite-activation", "nonfinite-loss", "nonfinite-gradient")

DATA: Final = (
    "label-out-of-range",
    "ignored-label-batch",
    "input-constant",
    "repeated-batch",
    "unshuffled-data",
    "single-class-batch",
    "same-order-every-epoch",
    "epoch-position-correlated",
    "rank-duplicate-data",
    "train-val-overlap",
    "train-val-shift",
    "input-scale",
    "label-scale",
)
"""Rules about what the loop is fed with, the most certain first."""
WIRED: Final = (
    "optimizer-stale-params",
    "loss-detached",
    "rank-params-diverged",
    "call-order",
    "clip-before-unscale",
    "weight-init-symmetric",
    "unintended-freeze",
    "no-nonlinearity",
    "softmax-single-unit",
    "softmax-wrong-dim",
    "nll-without-log",
    "softmax-before-cross-entropy",
    "sigmoid-before-bce-logits",
    "relu-on-output",
    "output-range-mismatch",
    "loss-broadcast",
    "loss-negative",
    "train-mode-missing",
    "eval-mode-leak",
    "lr-out-of-family-range",
    "amp-without-scaler",
)
"""Rules that read their cause off the loop itself, the most upstream first."""
MEASURED: Final = (
    "train-val-overlap",
    "train-val-shift",
    "eval-mode-leak",
    "same-order-every-epoch",
    "epoch-position-correlated",
    "rank-duplicate-data",
)
"""Faults of how a training is measured or walked through: its loss does not suffer from them at once."""
NOTES: Final = (
    "frozen-bn-updating",
    "bn-small-batch",
    "preflight",
    "multilabel-loss-mismatch",
    "loss-reduction-sum",
    "class-imbalance",
    "input-bound",
    "loader-workers-zero",
    "gpu-memory-growth",
    "deep-sigmoid-stack",
    "weight-decay-on-norm-bias",
    "adam-with-l2",
    "bias-before-norm",
    "dropout-too-high",
)
"""Rules that explain nothing else."""
STANDSTILL: Final = (
    "val-constant",
    "unchanged-parameter",
    "update-ratio-low",
    "loss-stuck-at-prior",
    "loss-not-decreasing",
    "loss-constant",
    "prediction-collapse",
    "plateau",
)
"""Signs that nothing is learned."""

RATE: Final = ("lr-too-high", "update-ratio-high")
"""A learning rate that is too high: several signs of it, and the first of them."""

BLOW_UP: Final = (
    "lr-too-high",
    "update-ratio-high",
    "gradient-exploding",
    "gradient-exploding-depth",
    "activation-drift",
    "weight-norm-growth",
    "loss-divergence",
    "loss-spike",
    "loss-oscillation",
    "amp-skip-storm",
)
"""Signs that numbers grow."""

SHUT: Final = (
    "dead-relu-units",
    "dead-units-growing",
    "saturated-activation",
    "input-insensitive",
    "gradient-vanishing-depth",
    "activation-scale-depth",
)
"""Signs that a layer passes nothing on."""

VALIDATION: Final = ("overfitting", "generalisation-gap")

SYMPTOMS: Final = (
    *BLOW_UP,
    *SHUT,
    *STANDSTILL,
    *NONFINITE,
    *VALIDATION,
    "over-regularised",
    "initial-loss-mismatch",
)
"""What any fault of data or wiring may end in."""

UPSTREAM: Final = (
    *DATA,
    *WIRED,
    "trainable-not-in-optimizer",
    "grad-not-zeroed",
    "resume-discontinuity",
    "lr-schedule-mismatch",
    "low-precision-update-lost",
    "adam-eps-dominates",
    "activation-scale-depth",
    "gradient-exploding-depth",
    *RATE,
    "saturated-activation",
    "dead-relu-units",
    "dead-units-growing",
    "gradient-vanishing-depth",
    *NONFINITE,
    "input-insensitive",
    "over-regularised",
    "gradient-exploding",
    "weight-norm-growth",
    "activation-drift",
    "loss-spike",
    "loss-divergence",
    "update-ratio-low",
    "unchanged-parameter",
    "loss-oscillation",
    "amp-skip-storm",
    "loss-constant",
    "loss-stuck-at-prior",
    "initial-loss-mismatch",
    "prediction-collapse",
    "loss-not-decreasing",
    "plateau",
    "val-constant",
    *VALIDATION,
    *NOTES,
)
"""Rules from deterministic and upstream to statistical and downstream: decides between causes with
the same onset."""

EXPLAINS: Final[dict[str, tuple[str, ...]]] = {
    **{rule: SYMPTOMS for rule in (*DATA, *WIRED) if rule not in MEASURED},
    "lr-out-of-family-range": tuple(rule for rule in SYMPTOMS if rule not in RATE),
    "optimizer-stale-params": (*SYMPTOMS, "trainable-not-in-optimizer"),
    "unshuffled-data": (
        *SYMPTOMS,
        "single-class-batch",
        "same-order-every-epoch",
        "epoch-position-correlated",
    ),
    "same-order-every-epoch": ("epoch-position-correlated",),
    "input-constant": (*SYMPTOMS, "repeated-batch", "train-val-shift"),
    "input-scale": (*SYMPTOMS, "train-val-shift"),
    "train-val-shift": VALIDATION,
    "eval-mode-leak": VALIDATION,
    "nll-without-log": (*SYMPTOMS, "loss-negative"),
    "relu-on-output": (*SYMPTOMS, "output-range-mismatch"),
    "trainable-not-in-optimizer": STANDSTILL,
    "grad-not-zeroed": (*BLOW_UP, *SHUT, *STANDSTILL, *NONFINITE, *VALIDATION),
    "resume-discontinuity": (*BLOW_UP, *SHUT, *STANDSTILL, *VALIDATION, "initial-loss-mismatch"),
    "lr-schedule-mismatch": STANDSTILL,
    "low-precision-update-lost": STANDSTILL,
    "adam-eps-dominates": STANDSTILL,
    "activation-scale-depth": (*BLOW_UP, *SHUT, *STANDSTILL, *NONFINITE, "initial-loss-mismatch"),
    "gradient-exploding-depth": (*BLOW_UP, *SHUT, *STANDSTILL, *NONFINITE, "initial-loss-mismatch"),
    **dict.fromkeys(
        RATE,
        (
            "lr-out-of-family-range",
            *BLOW_UP,
            *SHUT,
            *STANDSTILL,
            *NONFINITE,
            *VALIDATION,
        ),
    ),
    "saturated-activation": (
        "gradient-vanishing-depth",
        "gradient-exploding-depth",
        "input-insensitive",
        *STANDSTILL,
    ),
    "dead-relu-units": (
        "dead-units-growing",
        "gradient-vanishing-depth",
        "activation-scale-depth",
        "activation-drift",
        "input-insensitive",
        "loss-divergence",
        "loss-spike",
        *STANDSTILL,
    ),
    "dead-units-growing": ("dead-relu-units", "input-insensitive", *STANDSTILL),
    "amp-skip-storm": (
        "gradient-exploding",
        "loss-divergence",
        "loss-spike",
        *STANDSTILL,
        *VALIDATION,
    ),
    "loss-oscillation": ("plateau", "loss-not-decreasing", "loss-spike"),
    "gradient-vanishing-depth": (
        "input-insensitive",
        "saturated-activation",
        "activation-scale-depth",
        *STANDSTILL,
    ),
    "input-insensitive": STANDSTILL,
    "over-regularised": (*SHUT, *STANDSTILL, "activation-drift", "loss-divergence"),
    "gradient-exploding": (*BLOW_UP, *SHUT, *STANDSTILL, *NONFINITE),
    "weight-norm-growth": (*BLOW_UP, *SHUT, *STANDSTILL, *NONFINITE, *VALIDATION),
    "activation-drift": (
        "gradient-exploding",
        "loss-divergence",
        "loss-spike",
        *STANDSTILL,
        *NONFINITE,
    ),
    "loss-spike": (
        "update-ratio-high",
        "loss-divergence",
        "gradient-exploding",
        "activation-drift",
        "weight-norm-growth",
        "dead-relu-units",
        *STANDSTILL,
    ),
    "loss-divergence": ("gradient-exploding", "loss-spike", *STANDSTILL, *NONFINITE),
    "update-ratio-low": ("lr-out-of-family-range", *STANDSTILL),
    "unchanged-parameter": STANDSTILL,
    "loss-constant": (
        "loss-stuck-at-prior",
        "prediction-collapse",
        "loss-not-decreasing",
        "plateau",
    ),
    "loss-stuck-at-prior": ("prediction-collapse", "loss-not-decreasing", "plateau"),
    "class-imbalance": ("prediction-collapse",),
    "loss-not-decreasing": (
        "prediction-collapse",
    ),  # who learns nothing says what is most frequent
    "prediction-collapse": ("plateau",),
    "plateau": ("loss-not-decreasing", "lr-schedule-mismatch", "val-constant"),
    "overfitting": ("generalisation-gap",),
    **dict.fromkeys(NONFINITE, (*NONFINITE, *BLOW_UP, *SHUT, *STANDSTILL, *VALIDATION)),
}
"""For each rule those that it may bring about."""

SLACK: Final = 50
"""Steps by which a cause may be seen after its consequence: slow signs, samples far apart. What is read off the loop
itself is known more closely."""
OVER: Final = 100
"""Steps after the end of a resolved cause in which it may still take effect."""
DETERMINISTIC: Final = ("trainable-not-in-optimizer", "grad-not-zeroed", *DATA, *WIRED)


def arbitrate(findings: list[Finding]) -> list[Finding]:
    """`findings` with `root` and `cause` set, the most severe first, then the earliest.

    Roots come before their consequences at the same severity and onset.
    """
    causes = {finding.key: _cause(finding, findings) for finding in findings}
    settled = [
        msgspec.structs.replace(finding, root=root == "", cause=root)
        for finding in findings
        for root in [_root(finding.key, causes)]
    ]
    return sorted(_still_hurting(settled), key=_order)


def _still_hurting(findings: list[Finding]) -> list[Finding]:
    """A root whose own sign is over stays open while a consequence of it still holds."""
    hurting = {
        finding.cause
        for finding in findings
        if finding.state == "firing" and finding.severity != "info"
    }
    return [
        msgspec.structs.replace(finding, state="firing") if finding.key in hurting else finding
        for finding in findings
    ]


def _cause(effect: Finding, findings: list[Finding]) -> Finding | None:
    """The direct cause of `effect`: of those that may explain it the earliest, then most upstream."""
    candidates = [cause for cause in findings if _explains(cause, effect)]
    return min(candidates, key=lambda cause: (cause.first_step, _rank(cause)), default=None)


def _explains(cause: Finding, effect: Finding) -> bool:
    if cause.key == effect.key or effect.rule not in EXPLAINS.get(cause.rule, ()):
        return False
    severity = SEVERITIES.index(cause.severity)
    if severity < min(SEVERITIES.index(effect.severity), SEVERITIES.index("warning")):
        return False  # a note explains no warning
    if cause.state == "resolved" and effect.first_step > cause.last_step + OVER:
        return False
    if cause.rule in NONFINITE and effect.rule in NONFINITE:
        return _names(cause) == cause.rule
    if cause.rule == "trainable-not-in-optimizer" and effect.rule == "unchanged-parameter":
        return bool(set(cause.layers) & set(effect.layers))
    signs = cause.evidence.get("signs", []), effect.evidence.get("signs", [])
    if effect.rule in signs[0] or cause.rule in signs[1]:
        return effect.rule in signs[0]  # what it was composed of does not explain it
    pair = {cause.rule, effect.rule}
    if pair & {*RATE} and pair & {"gradient-exploding", "loss-spike"}:
        # Updates are sampled, norms are not, so their onsets cannot decide; the rate can.
        rate = cause if cause.rule in RATE else effect
        return bool(rate.evidence.get("rate_rose")) == (rate is cause)
    if pair == {"dead-relu-units", "dead-units-growing"}:
        # Both are dated to a generation of samples. Units that die explain dead ones, unless these were dead before.
        growth, dead = (effect, cause) if cause.rule == "dead-relu-units" else (cause, effect)
        before = dead.first_step < int(growth.evidence.get("clear", growth.first_step))
        return before == (cause is dead)
    if cause.rule in EXPLAINS.get(effect.rule, ()):  # either way round: the earlier one
        return (cause.first_step, _rank(cause)) < (effect.first_step, _rank(effect))
    if effect.rule in VALIDATION:  # begins at its best value, before anything went wrong
        return cause.first_step <= effect.last_step
    slack = _looks_apart(cause.first_step) if cause.rule in WIRED else SLACK
    if effect.rule in NONFINITE and cause.rule not in DETERMINISTIC:
        slack = 0  # after a NaN nothing can be told apart
    begin = cause.evidence.get("clear", cause.first_step)
    return int(begin) <= effect.first_step + slack


def _looks_apart(step: int) -> int:
    """Steps since the loop was last seen without what was seen at `step`: twice as far as looks are apart there."""
    return max(3, step // 10)


def _names(finding: Finding) -> str:
    """The rule in whose domain the first non-finite value arose."""
    origin = finding.evidence.get("origin")
    return str(origin["rule"]) if isinstance(origin, dict) else ""


def _rank(finding: Finding) -> int:
    return UPSTREAM.index(finding.rule) if finding.rule in UPSTREAM else len(UPSTREAM)


def _root(key: str, causes: dict[str, Finding | None]) -> str:
    """Key of the root above `key`; "" when `key` is a root itself."""
    seen = [key]
    while (cause := causes[seen[-1]]) is not None:
        if cause.key in seen:
            break
        seen.append(cause.key)
    return seen[-1] if len(seen) > 1 else ""


def _order(finding: Finding) -> tuple[int, int, bool, int, str]:
    return (
        -SEVERITIES.index(finding.severity),
        finding.first_step,
        not finding.root,
        _rank(finding),
        finding.key,
    )
