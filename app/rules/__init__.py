"""Rules that read a run's records and say what is wrong with its training, where and since when."""

from trainvitals.app.rules.activations import DeadReluUnits
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.gradients import GradientExploding, GradientVanishingDepth
from trainvitals.app.rules.loss import LossDivergence, LossStuckAtPrior
from trainvitals.app.rules.losscurve import LossConstant, LossNotDecreasing, LossSpike
from trainvitals.app.rules.mobility import OverRegularised, UpdateRatioLow
from trainvitals.app.rules.numerics import NonFiniteActivation, NonFiniteGradient, NonFiniteLoss
from trainvitals.app.rules.optimizer import (
    GradNotZeroed,
    TrainableNotInOptimizer,
    UnchangedParameter,
)
from trainvitals.app.rules.precision import AdamEpsDominates, LowPrecisionUpdateLost
from trainvitals.app.rules.saturation import InputInsensitive, SaturatedActivation
from trainvitals.app.rules.scales import (
    ActivationDrift,
    ActivationScaleDepth,
    GradientExplodingDepth,
    WeightNormGrowth,
)
from trainvitals.app.rules.schedule import LrScheduleMismatch
from trainvitals.app.rules.updates import UpdateRatioHigh
from trainvitals.app.rules.validation import Overfitting, ValConstant

RULES: tuple[type[Rule], ...] = (
    NonFiniteLoss,
    NonFiniteGradient,
    NonFiniteActivation,
    TrainableNotInOptimizer,
    UnchangedParameter,
    GradNotZeroed,
    GradientVanishingDepth,
    GradientExploding,
    DeadReluUnits,
    UpdateRatioHigh,
    UpdateRatioLow,
    LrScheduleMismatch,
    LowPrecisionUpdateLost,
    AdamEpsDominates,
    ActivationScaleDepth,
    GradientExplodingDepth,
    SaturatedActivation,
    InputInsensitive,
    ActivationDrift,
    WeightNormGrowth,
    OverRegularised,
    LossDivergence,
    LossSpike,
    LossConstant,
    LossStuckAtPrior,
    LossNotDecreasing,
    Overfitting,
    ValConstant,
)
"""Every rule, in the order in which the pages list them."""
