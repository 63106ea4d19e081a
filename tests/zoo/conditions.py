"""All conditions, in the order of the table."""

from tests.zoo import (
    architectures,
    life,
    loops,
    optimizers,
    outputs,
    precision,
    ranks,
    weights,
    wrappers,
)

CONDITIONS = [
    *architectures.CONDITIONS,
    *outputs.CONDITIONS,
    *weights.CONDITIONS,
    *loops.CONDITIONS,
    *precision.CONDITIONS,
    *optimizers.CONDITIONS,
    *wrappers.CONDITIONS,
    *life.CONDITIONS,
    *ranks.CONDITIONS,
]
