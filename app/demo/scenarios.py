"""What the demo trains, and what must be found in it. Loads no torch: the demo's own process reads it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One training of the demo and the diagnosis that it deserves."""

    title: str
    """Name of the run."""
    root: str | None
    """Id of the rule that must name the root cause; None for a healthy run."""
    layers: tuple[str, ...] = ()
    """The root finding must name at least one of these layers; empty for "any"."""


SCENARIOS = {
    "healthy": Scenario("healthy-cnn", root=None),
    "blow-up": Scenario("learning-rate-x20", root="lr-too-high"),
    "vanishing": Scenario(
        "deep-sigmoid", root="gradient-vanishing-depth", layers=("fc1", "fc2", "fc3")
    ),
    "dying": Scenario("dying-relu", root="dead-units-growing", layers=("relu2",)),
}
