"""What each of several ranks tells of itself at the same steps, so that the server can compare them.

Data-parallel ranks hold the same weights and train on batches of their own. Each rank tells checksums of both at steps
that follow from their number alone: no rank waits for another one. Only where a wrapper says that ranks are parallel in
their data: tensor, pipeline and expert parallel ranks differ in their weights, or share their batches, by design.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from trainvitals.hooks.call import Call
from trainvitals.hooks.ensemble import is_sharded
from trainvitals.hooks.observe.reading import Reading, Values
from trainvitals.hooks.registry import Parameter, Registry, tensors_in
from trainvitals.hooks.wire.observed import Peer

EVERY = 500
"""Steps between two that all ranks tell of; at the start each power of two is one."""
PARTS = 64
"""Checksums of weights at most: layers beyond are added up with their neighbours."""
_FIRST = 1 << 18
"""Elements of an input on a device that its checksum is made of."""
_OF_TORCH = "torch.distributed.algorithms.ddp_comm_hooks"


def is_agreed(step: int) -> bool:
    """Whether all ranks tell of this step: 0, 1, 2, 4, 8 and so on, and every 500th."""
    return step & (step - 1) == 0 or step % EVERY == 0


def next_agreed(step: int) -> int:
    """The first of these steps from `step` on."""
    power = 1 << (step - 1).bit_length() if step > 0 else 0
    return min(power, -(-step // EVERY) * EVERY)


class Peers:
    """This rank among those that are parallel to it in their data."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._named: list[str] = []
        """The layers of each part of the weights, as they were last told."""
        self._wrappers: list[DistributedDataParallel] = []

    def watch(self, models: Sequence[nn.Module]) -> None:
        """These are watched, as they were given: the ranks' weights are to be the same also where a loop calls what is
        inside of a wrapper, and so averages nothing."""
        inner = (getattr(model, "_orig_mod", model) for model in models)
        self._wrappers += [model for model in inner if isinstance(model, DistributedDataParallel)]

    def forget(self) -> None:
        """Let go of the models."""
        self._wrappers = []

    def ask(self, call: Call, digest: str, step: int, reading: Reading) -> None:
        """Ask for what `Peer` tells, at the first call of a watched model in a step.

        digest: the checksum of the inputs; "" where they are not in host memory.
        """
        if not dist.is_initialized():
            return
        replica = self._replica_with(call[0])
        if replica is not None and is_agreed(step):
            ranks = dist.get_process_group_ranks(replica.process_group)
            weights, why = self._of_replica(replica)
            self._ask(call, digest, ranks, weights, why, reading)
        elif replica is None and (ranks := self._sharing(call[0])):
            why = "The model is sharded: each rank holds a part of its weights."
            self._ask(call, digest, ranks, [], why, reading)

    def _ask(
        self,
        call: Call,
        digest: str,
        ranks: Sequence[int],
        weights: list[Parameter],
        why: str,
        reading: Reading,
    ) -> None:
        if len(ranks) < 2:
            return
        devices = list(dict.fromkeys(parameter.tensor.device for parameter in weights))
        held = [[p for p in weights if p.tensor.device == device] for device in devices]
        sums = [reading.ask(_halves(group)) for group in held]
        names, ends = _parts([parameter.layer for group in held for parameter in group])
        told = names if names != self._named else []
        self._named = names
        inputs = [] if digest else list(tensors_in((call[1], call[2]), floating=False))
        seen = [reading.ask(_in_order(tensor)) for tensor in inputs]

        def part(values: Values) -> dict[str, object]:
            made = digest or "-".join(f"{_whole(values[place])[0]:08x}" for place in seen)
            added = np.cumsum([0, *(one for place in sums for one in _whole(values[place]))])
            return {
                "peer": Peer(
                    first=min(ranks),
                    ranks=len(ranks),
                    batch=made,
                    weights=np.diff(added[[0, *ends]]).astype("<u4").tobytes(),
                    layers=told,
                    device=_names_of(devices),
                    why=why,
                )
            }

        reading.then(part)

    def _replica_with(self, model: nn.Module) -> DistributedDataParallel | None:
        """The wrapper of a model: that in whose forward pass it is called, whatever is watched; else a watched one."""
        active = getattr(DistributedDataParallel, "_active_ddp_module", None)
        for wrapper in (active, *self._wrappers):
            if isinstance(wrapper, DistributedDataParallel) and model in set(wrapper.modules()):
                return wrapper
        return None

    def _of_replica(self, replica: DistributedDataParallel) -> tuple[list[Parameter], str]:
        """The parameters that are the same on all ranks; or none, and why they need not be."""
        hooks: Sequence[Any] = getattr(replica, "_comm_hooks", ())
        for hook, _ in hooks:
            name = f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', '')}"
            if not name.startswith(_OF_TORCH) or "local" in name.lower():
                return [], f"Gradients are exchanged by a communication hook ({name})."
        left_out = replica.parameters_to_ignore
        known = self._registry.parameters
        return [
            known.get(id(tensor), Parameter(name, name.rpartition(".")[0], "", tensor))
            for name, tensor in replica.module.named_parameters()
            if tensor.requires_grad
            and name not in left_out
            and not is_lazy(tensor)
            and not is_sharded(tensor)
            and type(tensor.data) is Tensor
        ], ""

    def _sharing(self, model: nn.Module) -> list[int]:
        """The ranks over which FSDP2 alone has sharded a model; none of any other: with a second dimension in a mesh
        some of its ranks may share a batch by design."""
        if not hasattr(model, "set_requires_gradient_sync"):  # FSDPModule, which older torch lacks
            return []
        held: list[Any] = [p.tensor for p in self._registry.parameters.values()]
        meshes = [tensor.device_mesh for tensor in held if is_sharded(tensor)]
        if not meshes or any(mesh.ndim != 1 or mesh != meshes[0] for mesh in meshes):
            return []
        ranks: list[int] = meshes[0].mesh.reshape(-1).tolist()
        return ranks


def _parts(layers: Sequence[str]) -> tuple[list[str], list[int]]:
    """The first layer of each part, and where it ends among the parameters, whose layers are given one by one."""
    begins = [at for at, name in enumerate(layers) if at == 0 or name != layers[at - 1]]
    begins = begins[:: -(-len(begins) // PARTS) or 1]
    return [layers[at] for at in begins], [*begins[1:], *([len(layers)] if layers else [])]


def _names_of(devices: Sequence[torch.device]) -> str:
    """What computes the weights: ranks on different devices round differently."""
    return ", ".join(
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
        for device in devices
    )


def _bits(tensor: Tensor) -> Tensor:
    """The elements as whole numbers, shape `(n,)`: equal where all bits of them are."""
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    return flat.view({1: torch.uint8, 2: torch.int16}.get(flat.itemsize, torch.int32))


def _halves(parameters: Sequence[Parameter]) -> Tensor:
    """The sum of all bits of each, modulo 2^32, shape `(2, n)`: low and high 16 bits, which any way to the host keeps.

    Added as 32-bit numbers, whose overflow wraps: 0.2 ms a million values on one core; with 64-bit ones 6 ms.
    """
    sums = [_bits(parameter.tensor).sum(dtype=torch.int32) for parameter in parameters]
    return _split(torch.stack(sums))


def _in_order(tensor: Tensor) -> Tensor:
    """The same of one input, each element times another odd number: small whole numbers give equal sums too often."""
    bits = _bits(tensor)[:_FIRST].long()
    odd = torch.arange(bits.numel(), device=bits.device) * 0x9E3779B1 * 2 + 1
    mixed = (bits * odd).sum()
    return _split((mixed >> 31).reshape(1))


def _split(sums: Tensor) -> Tensor:
    return torch.stack([sums & 0xFFFF, (sums >> 16) & 0xFFFF])


def _whole(halves: Sequence[float]) -> list[int]:
    """The numbers that `_split` took apart."""
    count = len(halves) // 2
    return [
        int(low) + (int(high) << 16)
        for low, high in zip(halves[:count], halves[count:], strict=True)
    ]
