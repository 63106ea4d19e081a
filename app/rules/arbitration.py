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
    "train-val-overlap",
    "input-scale",
    "label-scale",
)
"""Rules about what the loop is fed with, the most certain first."""
WIRED: Final = (
    "optimizer-stale-params",
    "loss-detached",
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
    "lr-schedule-mismatch",
    "lr-out-of-family-range",
    "amp-without-scaler",
)
"""Rules that read their cause off the loop itself, the most upstream first."""
MEASURED: Final = ("train-val-overlap", "eval-mode-leak", "same-order-every-epoch")
"""Faults of how a training is measured or walked through: its loss does not suffer from them at once."""
NOTES: Final = (
    "frozen-bn-updating",
    "bn-small-batch",
    "preflight",
    "multilabel-loss-mismatch",
    "loss-reduction-sum",
    "class-imbalance",
    "deep-sigmoid-stack",
    "weight-decay-on-norm-bias",
    "adam-with-l2",
    "bias-before-norm",
    "dropout-too-high",
)
"""Rules that explain nothing else."""
SYMPTOMS: Final = (
    "update-ratio-high",
    "dead-relu-units",
    "gradient-vanishing-depth",
    "gradient-exploding",
    "loss-divergence",
    "unchanged-parameter",
    "loss-stuck-at-prior",
    "loss-constant",
    "initial-loss-mismatch",
    *NONFINITE,
)
"""What any fault of data or wiring may end in."""

UPSTREAM: Final = (
    *DATA,
    *WIRED,
    "trainable-not-in-optimizer",
    "grad-not-zeroed",
    "update-ratio-high",
    "dead-relu-units",
    "gradient-vanishing-depth",
    *NONFINITE,
    "gradient-exploding",
    "loss-divergence",
    "unchanged-parameter",
    "loss-stuck-at-prior",
    "loss-constant",
    "initial-loss-mismatch",
    *NOTES,
)
"""Rules from deterministic and upstream to statistical and downstream: decides between causes with
the same onset."""

EXPLAINS: Final[dict[str, tuple[str, ...]]] = {
    **{rule: SYMPTOMS for rule in (*DATA, *WIRED) if rule not in MEASURED},
    "lr-out-of-family-range": tuple(rule for rule in SYMPTOMS if rule != "update-ratio-high"),
    "optimizer-stale-params": (*SYMPTOMS, "trainable-not-in-optimizer"),
    "unshuffled-data": (*SYMPTOMS, "single-class-batch", "same-order-every-epoch"),
    "input-constant": (*SYMPTOMS, "repeated-batch"),
    "nll-without-log": (*SYMPTOMS, "loss-negative"),
    "relu-on-output": (*SYMPTOMS, "output-range-mismatch"),
    "trainable-not-in-optimizer": ("unchanged-parameter", "loss-stuck-at-prior"),
    "grad-not-zeroed": (
        "update-ratio-high",
        "dead-relu-units",
        "gradient-exploding",
        "loss-divergence",
        "loss-stuck-at-prior",
        *NONFINITE,
    ),
    "update-ratio-high": (
        "lr-out-of-family-range",
        "dead-relu-units",
        "gradient-vanishing-depth",
        "gradient-exploding",
        "loss-divergence",
        "unchanged-parameter",
        "loss-stuck-at-prior",
        *NONFINITE,
    ),
    "dead-relu-units": (
        "gradient-vanishing-depth",
        "loss-divergence",
        "unchanged-parameter",
        "loss-stuck-at-prior",
    ),
    "gradient-vanishing-depth": ("unchanged-parameter", "loss-stuck-at-prior"),
    "gradient-exploding": (
        "dead-relu-units",
        "loss-divergence",
        "loss-stuck-at-prior",
        "update-ratio-high",
        *NONFINITE,
    ),
    "loss-divergence": ("gradient-exploding", "loss-stuck-at-prior", *NONFINITE),
    "unchanged-parameter": ("loss-stuck-at-prior",),
    **dict.fromkeys(
        NONFINITE,
        (
            *NONFINITE,
            "dead-relu-units",
            "gradient-exploding",
            "gradient-vanishing-depth",
            "loss-divergence",
            "loss-stuck-at-prior",
            "unchanged-parameter",
            "update-ratio-high",
        ),
    ),
}
"""For each rule those that it may bring about."""

SLACK: Final = 50
"""Steps by which a cause may be seen after its consequence: slow signs, samples far apart."""
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
    if {cause.rule, effect.rule} == {"update-ratio-high", "gradient-exploding"}:
        # Updates are sampled, norms are not, so their onsets cannot decide; the rate can.
        rate = cause if cause.rule == "update-ratio-high" else effect
        return bool(rate.evidence.get("rate_rose")) == (rate is cause)
    if cause.rule in EXPLAINS.get(effect.rule, ()):  # either way round: the earlier one
        return (cause.first_step, _rank(cause)) < (effect.first_step, _rank(effect))
    slack = SLACK
    if effect.rule in NONFINITE and cause.rule not in DETERMINISTIC:
        slack = 0  # after a NaN nothing can be told apart
    return cause.first_step <= effect.first_step + slack


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
