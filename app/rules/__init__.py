"""Rules that read a run's records and say what is wrong with its training, where and since when."""

from trainvitals.app.rules.activations import DeadReluUnits
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.batches import (
    ClassImbalance,
    InputConstant,
    InputScale,
    SingleClassBatch,
    TrainValOverlap,
    UnshuffledData,
)
from trainvitals.app.rules.collapse import PredictionCollapse
from trainvitals.app.rules.deadgrowth import DeadUnitsGrowing
from trainvitals.app.rules.epochs import EpochPositionCorrelated
from trainvitals.app.rules.gap import GeneralisationGap
from trainvitals.app.rules.gradients import GradientExploding, GradientVanishingDepth
from trainvitals.app.rules.loopcalls import (
    AmpWithoutScaler,
    CallOrder,
    ClipBeforeUnscale,
    LossDetached,
)
from trainvitals.app.rules.loss import LossDivergence, LossStuckAtPrior
from trainvitals.app.rules.losscalls import (
    LossBroadcast,
    MultilabelLossMismatch,
    NllWithoutLog,
    OutputRangeMismatch,
    ReluOnOutput,
    SigmoidBeforeBceLogits,
    SoftmaxBeforeCrossEntropy,
    SoftmaxSingleUnit,
    SoftmaxWrongDim,
)
from trainvitals.app.rules.losscurve import LossConstant, LossNotDecreasing, LossSpike
from trainvitals.app.rules.lossvalues import (
    IgnoredLabelBatch,
    InitialLossMismatch,
    LabelOutOfRange,
    LabelScale,
    LossNegative,
    LossReductionSum,
)
from trainvitals.app.rules.memory import GpuMemoryGrowth
from trainvitals.app.rules.mobility import OverRegularised, UpdateRatioLow
from trainvitals.app.rules.modes import (
    BnSmallBatch,
    EvalModeLeak,
    FrozenBnUpdating,
    TrainModeMissing,
)
from trainvitals.app.rules.numerics import NonFiniteActivation, NonFiniteGradient, NonFiniteLoss
from trainvitals.app.rules.optimizer import (
    GradNotZeroed,
    TrainableNotInOptimizer,
    UnchangedParameter,
)
from trainvitals.app.rules.oscillation import LossOscillation
from trainvitals.app.rules.peers import RankDuplicateData, RankParamsDiverged
from trainvitals.app.rules.plateau import Plateau
from trainvitals.app.rules.precision import AdamEpsDominates, LowPrecisionUpdateLost
from trainvitals.app.rules.preflight import Preflight
from trainvitals.app.rules.ratehigh import LrTooHigh
from trainvitals.app.rules.repetition import RepeatedBatch, SameOrderEveryEpoch
from trainvitals.app.rules.resume import ResumeDiscontinuity
from trainvitals.app.rules.saturation import InputInsensitive, SaturatedActivation
from trainvitals.app.rules.scaler import AmpSkipStorm
from trainvitals.app.rules.scales import (
    ActivationDrift,
    ActivationScaleDepth,
    GradientExplodingDepth,
    WeightNormGrowth,
)
from trainvitals.app.rules.schedule import LrScheduleMismatch
from trainvitals.app.rules.shift import TrainValShift
from trainvitals.app.rules.updates import UpdateRatioHigh
from trainvitals.app.rules.validation import Overfitting, ValConstant
from trainvitals.app.rules.waiting import InputBound, LoaderWorkersZero
from trainvitals.app.rules.wiring import (
    AdamWithL2,
    BiasBeforeNorm,
    DeepSigmoidStack,
    DropoutTooHigh,
    LrOutOfFamilyRange,
    NoNonlinearity,
    OptimizerStaleParams,
    UnintendedFreeze,
    WeightDecayOnNormBias,
    WeightInitSymmetric,
)

RULES: tuple[type[Rule], ...] = (
    Preflight,
    NonFiniteLoss,
    NonFiniteGradient,
    NonFiniteActivation,
    AmpSkipStorm,
    TrainableNotInOptimizer,
    UnchangedParameter,
    GradNotZeroed,
    GradientVanishingDepth,
    GradientExploding,
    DeadReluUnits,
    DeadUnitsGrowing,
    LrTooHigh,
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
    PredictionCollapse,
    LossOscillation,
    Plateau,
    ResumeDiscontinuity,
    Overfitting,
    GeneralisationGap,
    ValConstant,
    # what the loop shows of itself: wiring and losses
    OptimizerStaleParams,
    WeightInitSymmetric,
    UnintendedFreeze,
    NoNonlinearity,
    SoftmaxBeforeCrossEntropy,
    NllWithoutLog,
    SigmoidBeforeBceLogits,
    SoftmaxSingleUnit,
    SoftmaxWrongDim,
    ReluOnOutput,
    OutputRangeMismatch,
    LossBroadcast,
    MultilabelLossMismatch,
    InitialLossMismatch,
    LossNegative,
    LossReductionSum,
    LabelOutOfRange,
    IgnoredLabelBatch,
    LabelScale,
    # the order of its calls and its modes
    CallOrder,
    LossDetached,
    ClipBeforeUnscale,
    AmpWithoutScaler,
    TrainModeMissing,
    EvalModeLeak,
    FrozenBnUpdating,
    BnSmallBatch,
    LrOutOfFamilyRange,
    RankParamsDiverged,
    # its data
    RepeatedBatch,
    UnshuffledData,
    SingleClassBatch,
    SameOrderEveryEpoch,
    EpochPositionCorrelated,
    RankDuplicateData,
    TrainValOverlap,
    TrainValShift,
    InputConstant,
    InputScale,
    ClassImbalance,
    InputBound,
    LoaderWorkersZero,
    GpuMemoryGrowth,
    # notes on structure and settings
    DeepSigmoidStack,
    WeightDecayOnNormBias,
    AdamWithL2,
    BiasBeforeNorm,
    DropoutTooHigh,
)
"""Every rule, in the order in which the pages list them."""
