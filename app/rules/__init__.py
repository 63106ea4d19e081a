"""Rules that read a run's records and say what is wrong with its training, where and since when."""

from trainvitals.app.rules.activations import DeadReluUnits
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.gradients import GradientExploding, GradientVanishingDepth
from trainvitals.app.rules.loss import LossDivergence, LossStuckAtPrior
from trainvitals.app.rules.numerics import NonFiniteActivation, NonFiniteGradient, NonFiniteLoss
from trainvitals.app.rules.optimizer import (
    GradNotZeroed,
    TrainableNotInOptimizer,
    UnchangedParameter,
)
from trainvitals.app.rules.updates import UpdateRatioHigh

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
    LossDivergence,
    LossStuckAtPrior,
)
"""Every rule, in the order in which the pages list them."""
