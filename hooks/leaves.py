"""Which parameters a loss depends on."""

from typing import Any

from torch import Tensor


def leaves(tensors: Any) -> dict[int, int]:
    """Tensors that a backward pass from these gives gradients: by id the number of the operation that used each last,
    which rises in the order of the forward pass."""
    roots = tensors if isinstance(tensors, list | tuple) else [tensors]
    found = {id(root): 0 for root in roots}
    nodes = [root.grad_fn for root in roots if isinstance(root, Tensor)]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None:
                found[id(variable)] = max(found.get(id(variable), 0), node._sequence_nr())
            elif following not in seen:
                seen.add(following)
                nodes.append(following)
    return found
