"""Runs a training of the zoo in a role and keeps what it left: values, records and traces."""

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils.data.dataloader import _BaseDataLoaderIter

import trainvitals.hooks as tv
from tests.hooks.conftest import Recorded
from tests.zoo.reference import Readings
from tests.zoo.session import Role, Session, seed_everything
from trainvitals.hooks.spool import find_streams, read_stream

Train = Callable[[Session], None]


@dataclass(frozen=True)
class Condition:
    """One row of the table."""

    name: str
    train: Train
    missing: Mapping[str, str] = field(default_factory=dict)
    """Facet to the reason why (some of) it is not recorded."""
    slow: bool = False
    ranks: int = 1
    sharded: bool = False
    """Whether parameters are in pieces, so that their values cannot be compared with whole ones."""
    tolerance: float = 1e-4
    """Relative, of every value; wider only where the simple form computes in another order."""
    note: str = ""
    """What else the table says."""
    skip: str = ""
    """Why it cannot be run here."""

    @property
    def id(self) -> str:
        """For test ids."""
        return self.train.__name__


@dataclass(repr=False)
class Run:
    """What a training left behind; plain data, so that it may come from another process."""

    left: dict[str, Any]
    """Losses, weights, buffers, optimizer state and the state of all random generators."""
    traces: dict[str, Any]
    """What can be seen on models and optimizers after everything was taken off."""
    changed: list[str]
    """Global functions and hook tables that are not as they were."""
    readings: list[Readings]
    recorded: Recorded | None
    poisoned: str


def run(condition: Condition, role: Role, folder: Path, rank: int = 0) -> Run:
    """Train once."""
    into = folder / role.name
    seed_everything()
    before = global_state()
    session = Session(role, str(into), rank, condition.ranks)
    try:
        condition.train(session)
        traces, references = _close(session)
    finally:
        tv.finish()
    left = {
        "losses": np.array(session.losses).tobytes(),
        "notes": session.notes,
        "models": [bits_of(model.state_dict()) for model in session.models],
        "optimizers": [bits_of(item.state_dict()) for item in session.optimizers],
        "random": [
            torch.random.get_rng_state().numpy().tobytes(),
            str(np.random.get_state()),
            random.getstate(),
        ],
    }
    readings = session.reference.close() if session.reference is not None else []
    poisoned = session.poisoned
    del session
    gc.collect()
    traces["kept alive"] = [reference() is not None for reference in references]
    changed = [name for name, value in global_state().items() if before[name] != value]
    return Run(left, traces, changed, readings, _records(into), poisoned)


def _close(session: Session) -> tuple[dict[str, Any], list[weakref.ref[nn.Module]]]:
    """End the watching, and look at what is left on the objects of the training."""
    if session.role is Role.DEFAULT:
        tv.detach()
    else:
        tv.finish()
    traces = {
        "models": [traces_of_model(model) for model in session.models],
        "optimizers": [traces_of_optimizer(item) for item in session.optimizers],
    }
    return traces, [weakref.ref(model) for model in session.models]


def _records(folder: Path) -> Recorded | None:
    """The newest stream that holds a step; None when nothing was recorded."""
    if not (folder / ".trainvitals").exists():
        return None
    streams = find_streams(folder / ".trainvitals")
    if not streams:
        return None
    newest = max(streams, key=lambda stream: stream.stat().st_mtime_ns)
    return Recorded(list(read_stream(newest)))


def bits_of(value: Any) -> Any:
    """A nested state with every tensor as (type, shape, bytes), so that == compares bit for bit."""
    if isinstance(value, Tensor):
        local = value.to_local() if hasattr(value, "to_local") else value
        dense = local.detach().clone().contiguous()
        raw = dense.view(torch.uint8).numpy().tobytes() if dense.dim() else dense.numpy().tobytes()
        return str(dense.dtype), tuple(dense.shape), raw
    if isinstance(value, Mapping):
        return {key: bits_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits_of(item) for item in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else repr(type(value))


def global_state() -> dict[str, Any]:
    """Everything global that watching could touch: functions by identity, hook tables by their keys."""
    functions = {
        "Module.__call__": nn.Module.__call__,
        "Module._call_impl": nn.Module._call_impl,
        "Module.__setattr__": nn.Module.__setattr__,
        "torch.autograd.backward": torch.autograd.backward,
        "torch.autograd.grad": torch.autograd.grad,
        "Tensor.backward": Tensor.backward,
        "DataLoader.__iter__": torch.utils.data.DataLoader.__iter__,
        "_BaseDataLoaderIter.__next__": _BaseDataLoaderIter.__next__,
        "clip_grad_norm_": nn.utils.clip_grad_norm_,
        "clip_grad_value_": nn.utils.clip_grad_value_,
        "Optimizer.zero_grad": torch.optim.Optimizer.zero_grad,
        "GradScaler.step": torch.amp.GradScaler.step,
        "GradScaler.unscale_": torch.amp.GradScaler.unscale_,
        "GradScaler._unscale_grads_": torch.amp.GradScaler._unscale_grads_,
    }
    clipping = {
        f"clip_grad.{name}": function for name, function in vars(nn.utils.clip_grad).items()
    }
    tables = {
        name: list(getattr(owner, name))
        for owner in (module_hooks, optimizer_hooks)
        for name in vars(owner)
        if name.startswith("_global_") and isinstance(getattr(owner, name), dict)
    }
    rest = {
        "dispatch modes": torch.utils._python_dispatch._get_current_dispatch_mode() is None,
        "function modes": torch._C._len_torch_function_stack(),
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True) is None,
    }
    return {**functions, **clipping, **tables, **rest}


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def traces_of_model(model: nn.Module) -> dict[str, Any]:
    """Names of attributes and keys, numbers of hooks, and whether copies can be made."""
    return {
        "keys": list(model.state_dict()),
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "hooks": {
            name: [len(getattr(module, key)) for key in _HOOKS]
            for name, module in model.named_modules()
        },
        "parameters": {
            name: (
                sorted(vars(parameter)),
                len(parameter._backward_hooks or ()),
                len(parameter._post_accumulate_grad_hooks or ()),
            )
            for name, parameter in model.named_parameters()
        },
        "pickle": _tried(lambda: pickle.loads(pickle.dumps(model))),
        "deepcopy": _tried(lambda: copy.deepcopy(model)),
    }


def traces_of_optimizer(optimizer: Any) -> dict[str, Any]:
    """The same for an optimizer."""
    return {
        "attributes": sorted(vars(optimizer)),
        "hooks": {
            name: len(value)
            for name, value in vars(optimizer).items()
            if name.endswith("_hooks") and hasattr(value, "__len__")
        },
    }


def _tried(copying: Callable[[], nn.Module]) -> Any:
    try:
        return bits_of(copying().state_dict())
    except Exception as error:
        return type(error).__name__
