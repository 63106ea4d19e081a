"""Which layers give values that are not finite and mean it: they did so in steps whose loss was fine.

Masks of -infinity for attention or for actions that can't be taken, NaN for rows that are left out later. What they
give tells nothing of a loss that is not finite.
"""

from collections.abc import Mapping


class Harmless:
    """Names of such layers, as far as sampled steps showed."""

    def __init__(self) -> None:
        self._minus: set[str] = set()
        """Of those that gave -infinity and nothing worse."""
        self._worse: set[str] = set()
        """Of those that gave NaN or +infinity."""

    def learn(self, layers: Mapping[str, bool]) -> None:
        """A step went well in which these gave something that is not finite: by name, whether NaN or +infinity."""
        for name, worse in layers.items():
            (self._worse if worse else self._minus).add(name)

    def gave_worse(self, name: str) -> bool:
        """Whether a layer gave NaN or +infinity."""
        return name in self._worse

    def gave(self, name: str) -> bool:
        """Whether a layer gave anything that is not finite."""
        return name in self._worse or name in self._minus
