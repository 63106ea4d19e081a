"""Which parameters a loss depends on, and where in the forward pass they are used."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor

Place: TypeAlias = tuple[int, ...]
"""The number of an operation, which rises in the order of the forward pass. Of one that a checkpoint has computed
again: the number of the checkpoint, then its own; so for checkpoints inside of others."""


def leaves(tensors: Any) -> set[int]:
    """Ids of the tensors that a backward pass from these gives gradients."""
    return _roots(tensors) | {key for node in operations(tensors) for key in _used_by(node)}


def _roots(tensors: Any) -> set[int]:
    return set(map(id, tensors if isinstance(tensors, list | tuple) else [tensors]))


def operations(tensors: Any) -> Iterator[Any]:
    """The nodes of the graph behind these, down to those of leaves, in no order."""
    roots = tensors if isinstance(tensors, list | tuple) else [tensors]
    nodes = [root.grad_fn for root in roots if isinstance(root, Tensor)]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        yield node
        for following, _ in node.next_functions:
            if following not in seen and getattr(following, "variable", None) is None:
                seen.add(following)
                nodes.append(following)


def _used_by(node: Any) -> Iterator[int]:
    for following, _ in node.next_functions:
        variable = getattr(following, "variable", None)
        if variable is not None:
            yield id(variable)


class Uses:
    """Where each parameter was used in a forward pass, as far as was seen: the later, the sooner backward meets it."""

    def __init__(self) -> None:
        self._places: dict[int, list[Place]] = {}
        self._fresh: set[int] = set()
        """Tensors met in the backward pass under way."""
        self._inside: dict[int, Place] = {}
        """Of the operations that checkpoints have computed again in it: the place of the checkpoint."""

    def __bool__(self) -> bool:
        return bool(self._places)

    def learn(self, tensors: Any) -> None:
        """A backward pass is about to begin from these: what it says of a tensor counts from now on."""
        self._fresh, self._inside = set(), {}
        for key in _roots(tensors):
            self._add(key, (0,))
        self._learn(tensors, ())

    def learn_inside(self, checkpoint: Any, tensors: Any) -> None:
        """Inside of that pass the node of a `checkpoint` begins another one, from what it has computed again."""
        number = checkpoint._sequence_nr()
        self._learn(tensors, (*self._inside.get(number, ()), number))

    def _learn(self, tensors: Any, within: Place) -> None:
        for node in operations(tensors):
            number = node._sequence_nr()
            if within:
                self._inside[number] = within
            for key in _used_by(node):
                self._add(key, (*within, number))

    def _add(self, key: int, place: Place) -> None:
        if key not in self._fresh:
            self._fresh.add(key)
            self._places[key] = []
        self._places[key].append(place)

    def last(self, key: int) -> Place | None:
        """Where a tensor was used last; None where that was not seen."""
        places = self._places.get(key)
        return max(places) if places else None

    def last_before(self, key: int, fine: Sequence[Place]) -> Place:
        """Where a tensor of a bad gradient was used last, or before that: not after what, between its uses, was `fine`
        throughout, as what is bad comes through to all that was used before. Of one whose places are known."""
        places = sorted(self._places[key])
        between = [place for place in fine if places[0] < place < places[-1]]
        return max(place for place in places if not between or place < min(between))
