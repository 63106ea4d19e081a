"""The watched models: names of their layers and parameters, and the order in which they run."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from trainvitals.hooks.harmless import Harmless
from trainvitals.hooks.leaves import Uses
from trainvitals.hooks.settings import clean_name
from trainvitals.hooks.slim import SlimModules, hooks_so_far, in_rows, slim_modules
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.records import Row

is_functorch_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_OBJECTS_DEEP = 2
"""How deep inside arguments objects are looked into: one that is an argument itself."""
FOLLOW_EVERY = 4
"""Samples after which modules and parameters are looked for that were added, replaced or unfrozen."""


class Parameter(NamedTuple):
    """One parameter of a watched model."""

    name: str
    layer: str
    type: str
    tensor: Tensor


class Watched(NamedTuple):
    """One watched model, without its wrappers."""

    model: nn.Module
    prefix: str
    include: Sequence[str]
    exclude: Sequence[str]

    def wants(self, name: str) -> bool:
        """Whether the globs let a layer or parameter of this name in."""
        included = not self.include or any(fnmatchcase(name, glob) for glob in self.include)
        return included and not any(fnmatchcase(name, glob) for glob in self.exclude)


def local(tensor: Tensor) -> Tensor:
    """Of a tensor that ranks have shards of, the one that lies here: torch would ask the other ranks for the rest,
    which don't answer. Any other tensor itself."""
    part = getattr(tensor, "_local_tensor", None)
    return tensor if part is None else part


def class_name(module: nn.Module) -> str:
    """Name of a module's class, of the user's own one where FSDP2 has derived one from it."""
    kind = type(module)
    if kind.__name__.startswith("FSDP") and len(kind.__bases__) == 2:
        kind = kind.__bases__[1]
    return kind.__name__


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside DDP, DataParallel and torch.compile wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module) and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of this module run compiled code."""
    return (
        getattr(module, "_orig_mod", None) is not None
        or getattr(module, "_compiled_call_impl", None) is not None
    )


class Registry:
    """Layers and parameters of all watched models. Cheap look-ups for the hooks; `refresh` follows changes."""

    def __init__(self, outputs: bool = True, parameters: bool = True) -> None:
        """Whether statistics of outputs and of parameters are wanted at all, as far as the globs say so."""
        self._outputs, self._parameters = outputs, parameters
        self.models: list[Watched] = []
        self.layers: dict[nn.Module, str] = {}
        """Every module of the watched models, whether statistics are wanted or not."""
        self.wanted: set[nn.Module] = set()
        """Modules whose outputs are wanted."""
        self.parameters: dict[int, Parameter] = {}
        """By the tensor's id: all parameters, tied ones once."""
        self.wanted_parameters: set[int] = set()
        self.order: dict[str, int] = {}
        """Layer name to its place in the forward order, as far as it was seen."""
        self.harmless = Harmless()
        self.uses = Uses()
        """Where in a forward pass the parameters are used."""
        self.roots: set[nn.Module] = set()
        """The watched models themselves."""
        self.in_rows: set[nn.Module] = set()
        """Layers whose calls are not noted by themselves; see `slim`."""
        self._slim: SlimModules = {}
        self._hooks = -1
        self.slim()
        self.on_cpu = self.on_meta = False
        """Whether any parameter lives on the CPU."""
        self.compiled = False
        """Whether any watched module runs compiled code, which hooks would only break up."""
        self.version = 0
        """Counts the changes of names, tensors and of what is trainable or initialised."""
        self._signature: tuple[object, ...] = ()
        self._outline: list[object] = []

    def add(self, model: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> None:
        """Watch `model`; one that is watched already keeps its prefix and gets the new globs."""
        inner = unwrap(model)
        if is_compiled(model) or is_compiled(inner):
            self.compiled = True
        for index, watched in enumerate(self.models):
            if watched.model is inner:
                self.models[index] = Watched(inner, watched.prefix, include, exclude)
                break
        else:
            prefix = f"model{len(self.models)}" if self.models else ""
            self.models.append(Watched(inner, prefix, include, exclude))
        self.refresh()

    def clear(self) -> None:
        """Let go of the models; the order of their layers is kept."""
        self.models = []
        self.refresh()

    def refresh(self) -> None:
        """Follow changes of the models."""
        outline = [part for watched in self.models for part in _outline(watched)]
        if outline == self._outline:
            return
        self._outline = outline
        self._read()
        self._hooks = -1
        self.slim()

    def _read(self) -> None:
        """Read the models again."""
        signature: list[object] = []
        layers: dict[nn.Module, str] = {}
        parameters: dict[int, Parameter] = {}
        wanted: set[nn.Module] = set()
        wanted_parameters: set[int] = set()
        for watched in self.models:
            hidden = _parametrisations(watched.model)
            for name, module in watched.model.named_modules():
                if is_compiled(module):
                    self.compiled = True
                layer = dotted(watched.prefix, name)
                first = layers.setdefault(module, layer) == layer
                if first and module not in hidden and watched.wants(layer):
                    wanted.add(module)
                for key, tensor in module.named_parameters(recurse=False):
                    full = dotted(watched.prefix, name, key)
                    parameter = Parameter(full, layer, class_name(module), tensor)
                    if parameters.setdefault(id(tensor), parameter) is parameter:
                        kind = tensor.requires_grad, is_lazy(tensor)
                        signature.append((parameter.name, id(tensor), *kind))
                        if watched.wants(parameter.name):
                            wanted_parameters.add(id(tensor))
        self.layers, self.parameters = layers, parameters
        self.roots = {watched.model for watched in self.models}
        self.on_cpu = any(p.tensor.device.type == "cpu" for p in parameters.values())
        self.on_meta = any(p.tensor.is_meta for p in parameters.values())
        self.wanted = wanted if self._outputs else set()
        if not self._parameters:
            wanted_parameters = set()
        signature.append(len(layers))
        changed = tuple(signature) != self._signature
        if changed:
            self.version += 1
            self.uses = Uses()
        if changed or wanted_parameters != self.wanted_parameters:
            self.wanted_parameters = (
                wanted_parameters  # never changed: others tell by it that all is as it was
            )
        self._signature = tuple(signature)

    def slim(self) -> SlimModules:
        """Modules whose calls are noted with less than all, as things are now."""
        if self._hooks != hooks_so_far():
            self._hooks = hooks_so_far()
            self._slim = slim_modules(self.layers, self.roots)
            self.in_rows = in_rows(self._slim)
        return self._slim

    def name_of(self, module: nn.Module) -> str | None:
        """Dotted name of a watched module, or of the one that a compiled wrapper holds; None for others."""
        name = self.layers.get(module)
        if name is None and "_orig_mod" in module._modules:
            name = self.layers.get(unwrap(module))
        return name

    def is_root(self, module: nn.Module) -> bool:
        """Whether this is a watched model, or the compiled wrapper of one."""
        return module in self.roots or (
            "_orig_mod" in module._modules and unwrap(module) in self.roots
        )

    def models_with(self, parameters: Iterable[Parameter]) -> set[nn.Module]:
        """The watched models that hold any of these."""
        held = {id(parameter.tensor) for parameter in parameters}
        return {root for root in self.roots if not held.isdisjoint(map(id, root.parameters()))}

    def type_of(self, module: nn.Module) -> str:
        """Class name of a module, of the user's own one inside a wrapper."""
        return class_name(unwrap(module))

    def in_forward_order(self) -> list[Parameter]:
        """All parameters by the place of their layer in the forward pass, as far as it was seen."""
        last = len(self.order)
        return sorted(
            self.parameters.values(), key=lambda parameter: self.order.get(parameter.layer, last)
        )

    def place_parameters(self, rows: "Rows", held: set[int]) -> None:
        """Give each wanted parameter its row; `held`: ids of the tensors that an optimizer holds.

        Those of a lazy module get theirs when its first call has made them.
        """
        for parameter in self.in_forward_order():
            if is_lazy(parameter.tensor):
                continue
            if id(parameter.tensor) in self.wanted_parameters:
                rows.place(
                    Row(
                        name=parameter.name,
                        layer=parameter.layer,
                        type=clean_name(parameter.type),
                        shape=tuple(parameter.tensor.shape)[:16],
                        trainable=parameter.tensor.requires_grad,
                        in_optimizer=id(parameter.tensor) in held,
                    )
                )

    def saw_call(self, name: str) -> None:
        """Note that a layer has run, in the order of the first calls."""
        if name not in self.order:
            self.order[name] = len(self.order)


def _outline(watched: Watched) -> Iterator[object]:
    """Everything of a model that names, rows, their order and `slim` are made from, but for hooks."""
    yield watched
    for name, module in watched.model.named_modules():
        own = module.__dict__
        compiled = module._compiled_call_impl is not None
        yield name, id(module), type(module), compiled, own.get("inplace"), "forward" in own
        for key, tensor in module._parameters.items():
            if tensor is not None:
                # A lazy one becomes another type when it is made.
                yield key, id(tensor), type(tensor), tensor.requires_grad, tensor.is_cpu


def _parametrisations(model: nn.Module) -> set[nn.Module]:
    """Modules that compute a weight from others (weight norm, spectral norm): their outputs are no activations."""
    return {
        part
        for module in model.modules()
        if isinstance(module, ParametrizationList)
        for part in module.modules()
    }


def dotted(*parts: str) -> str:
    """The name of a row. One that is too long to travel keeps both ends, and a checksum tells it from others."""
    name = ".".join(part for part in parts if part)
    name = name.replace("._orig_mod", "").replace("_orig_mod.", "")
    if len(name) > limits.MAX_NAME:
        end = limits.MAX_NAME // 2 - 8
        name = f"{name[:end]}…{zlib.crc32(name.encode(errors='replace')):08x}…{name[-end:]}"
    return clean_name(name) if name else ""


class Rows:
    """The rows of one group. They only ever grow, so that a row keeps its place in every sample."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._place: dict[str, int] = {}
        self.dirty = False
        """Whether the layout has to be sent (again)."""

    def place(self, row: Row) -> int | None:
        """Index of the row of that name, added where it is new; None when the group is full."""
        index = self._place.get(row.name)
        if index is None:
            if len(self.rows) >= limits.MAX_ROWS:
                return None
            index = self._place[row.name] = len(self.rows)
            self.rows.append(row)
            self.dirty = True
        elif self.rows[index] != row:
            self.rows[index] = row
            self.dirty = True
        return index

    def find(self, name: str) -> int | None:
        """Index of a row that is there already."""
        return self._place.get(name)


def tensors_in(value: object, limit: int = 8, floating: bool = True) -> Iterator[Tensor]:
    """Dense tensors with elements in an output or in arguments: tuples, dicts, dataclasses; in order. Those that
    stand for others inside of a transform of `torch.func` have no values of their own and are left out.

    `floating`: only those of a floating type. Of a NestedTensor its values, without the borders between its parts.
    """
    for found in every_tensor(value):
        if limit <= 0:
            return
        if is_functorch_wrapped(found):
            continue
        tensor = _values_of(found)
        wanted = tensor.is_floating_point() or not floating
        if wanted and tensor.numel() and tensor.layout is torch.strided:
            limit -= 1
            yield tensor


def _values_of(tensor: Tensor) -> Tensor:
    """What lies on this rank; of a NestedTensor its values, always as the same tensor."""
    tensor = local(tensor)
    if not tensor.is_nested:
        return tensor
    # `values()` gives a new tensor each time, which passes for another output
    inner = getattr(tensor, "_values", None)
    return inner if isinstance(inner, Tensor) else tensor.values()


def _is_plain_object(value: object) -> bool:
    """Whether it may be a batch or an output of a class of its own, such as a graph or a distribution."""
    return hasattr(value, "__dict__") and not (callable(value) or isinstance(value, ModuleType))


def every_tensor(value: object, depth: int = 0) -> Iterator[Tensor]:
    """All tensors in an output or in arguments, in order: of tuples, dicts, dataclasses, and other objects that are
    no more than `_OBJECTS_DEEP` inside."""
    if isinstance(value, Tensor):
        yield value
        return
    if depth > 4:
        return
    if isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, list | tuple):
        items = list(value)
    elif hasattr(value, "__dataclass_fields__"):
        items = [getattr(value, name) for name in value.__dataclass_fields__]
    elif depth <= _OBJECTS_DEEP and _is_plain_object(value):
        items = list(vars(value).values())
    else:
        return
    for item in items[:64]:
        yield from every_tensor(item, depth + 1)
