"""What is kept of an optimizer's step until the next loss tells whether it went well."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, NAdam, Optimizer, RAdam

from trainvitals.hooks.gradients import all_finite
from trainvitals.hooks.nonfinite import explain_gradients, explain_update, is_bad, is_finite
from trainvitals.hooks.registry import Parameter, Registry, local
from trainvitals.hooks.stats import values_of
from trainvitals.hooks.wire.records import NonFinite

_LARGE_RATE = 1e30
_NEVER_NEGATIVE = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf", "acc_delta")
"""What optimizers take the root of."""

gradient_of: Callable[[Tensor], Tensor | None] = vars(torch._C.TensorBase)["grad"].__get__


class Aftermath:
    """One optimizer's last step: references to the gradients that it was made of.

    Looking at weights after every step would cost more than all the rest: the first look into NumPy or torch
    takes 10 us once the training's own code has filled the caches. A step that broke the weights shows in the
    next loss, and then there is time to look.
    """

    __slots__ = ("_parameters", "gradients", "models", "optimizer", "step", "tensors")

    def __init__(
        self, optimizer: Optimizer, parameters: Sequence[Parameter], models: Set[nn.Module]
    ) -> None:
        """`parameters`: those that it holds; only the ones on the CPU count, where looking costs no wait. `models`:
        the watched ones that these belong to."""
        self.models = models
        self.optimizer = optimizer
        self._parameters = [
            p for p in parameters if p.tensor.is_cpu and _is_real_or_complex(p.tensor)
        ]
        self.tensors: Sequence[Tensor] = [parameter.tensor for parameter in self._parameters]
        self.gradients: Sequence[Tensor | None] = ()
        """Those of the tensors, until the next loss is fine."""
        self.step = -1
        """The step that it was."""

    @property
    def is_simple(self) -> bool:
        """Whether keeping the gradients is all that `keep` does."""
        return True

    def keep(self, step: int) -> None:
        """The optimizer has stepped."""
        self.step = step
        self.gradients = list(map(gradient_of, self.tensors))

    def let_go(self) -> None:
        """The step went well."""
        self.gradients = ()

    def bad(self) -> list[Parameter]:
        """Parameters whose weights are not finite."""
        if all_finite([parameter.tensor.detach() for parameter in self._parameters]):
            return []
        return [p for p in self._parameters if not is_finite(p.tensor)]

    def explain(self, bad_weights: Sequence[Parameter], registry: Registry) -> NonFinite | None:
        """How the step left these weights non-finite; None when it did not, or when someone else did since then."""
        spoiled = self._stepped(bad_weights)
        if not spoiled:
            return None
        bad = self._bad_gradients(spoiled)
        if bad:
            return explain_gradients(bad, registry)
        return explain_update(spoiled) if self._has_cause(spoiled) else None

    def _bad_gradients(self, spoiled: Sequence[Parameter]) -> list[tuple[Parameter, Tensor]]:
        """Parameters whose gradients were not finite, with a tensor that is so where they were."""
        if self._gradients_are_gone() and not (self._has_bad_rate() or self._overflows(spoiled)):
            traces = [(parameter, self._trace_of(parameter)) for parameter in spoiled]
            return [(parameter, trace) for parameter, trace in traces if not _finite(trace)]
        kept = zip(self._parameters, self.gradients, strict=True)
        return [(p, g) for p, g in kept if g is not None and not _finite(values_of(g))]

    def _trace_of(self, parameter: Parameter) -> Tensor:
        """What is as bad as a gradient that was wiped since: what the optimizer remembers of it, else the weight."""
        state = self.optimizer.state.get(parameter.tensor, {})
        memory = [local(v) for v in state.values() if isinstance(v, Tensor) and v.ndim]
        return next((v for v in memory if not _finite(v)), (memory or [local(parameter.tensor)])[0])

    def _stepped(self, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
        """Those that had a gradient."""
        kept = zip(self._parameters, self.gradients, strict=True)
        stepped = {id(parameter) for parameter, gradient in kept if gradient is not None}
        return [parameter for parameter in parameters if id(parameter) in stepped]

    def _has_cause(self, spoiled: Sequence[Parameter]) -> bool:
        """Whether anything in the optimizer explains it; otherwise someone else has written to the weights since."""
        return (
            self._has_bad_rate()
            or self._has_bad_memory()
            or self._divides_by_nothing(spoiled)
            or self._overflows(spoiled)
            or self._spoiled_all_of_a_group(spoiled)
        )

    def _gradients_are_gone(self) -> bool:
        """Whether `zero_grad(set_to_none=False)` has wiped them since, so that they tell nothing."""
        return not any(g is not None and bool(values_of(g).any()) for g in self.gradients)

    def _has_bad_rate(self) -> bool:
        numbers = [number for group in self.optimizer.param_groups for number in _numbers(group)]
        return any(not math.isfinite(number) or abs(number) > _LARGE_RATE for number in numbers)

    def _overflows(self, spoiled: Sequence[Parameter]) -> bool:
        """Whether rate, decay and the like, times each other and a gradient or weight, pass the largest number."""
        gradients = dict(zip(map(id, self.tensors), self.gradients, strict=True))
        groups = {id(t): group for group in self.optimizer.param_groups for t in group["params"]}
        for tensor in (parameter.tensor for parameter in spoiled):
            gradient = gradients.get(id(tensor))
            held = [local(tensor).detach(), *([] if gradient is None else [values_of(gradient)])]
            finite = [v.nan_to_num(0, 0, 0).abs().max() for v in held if v.numel()]
            largest = max(1.0, *map(float, finite))
            factor = math.prod(max(1.0, abs(n)) for n in _numbers(groups.get(id(tensor), {})))
            if largest * factor > torch.finfo(tensor.dtype).max:
                return True
        return False

    def _spoiled_all_of_a_group(self, spoiled: Sequence[Parameter]) -> bool:
        """Whether no value of several parameters, all that were stepped with one rate, is finite: the rate was bad and
        has been put right since, as a scheduler does."""
        lost = {id(p.tensor) for p in spoiled if not bool(local(p.tensor).isfinite().any())}
        stepped = {id(parameter.tensor) for parameter in self._stepped(self._parameters)}
        for group in self.optimizer.param_groups:
            members = {id(tensor) for tensor in group["params"]} & stepped
            if len(members) > 1 and members <= lost:
                return True
        return False

    def _divides_by_nothing(self, spoiled: Sequence[Parameter]) -> bool:
        """Whether eps is 0, or becomes that in the type of a parameter, as 1e-8 does in float16."""
        epsilons = {
            id(tensor): group.get("eps")
            for group in self.optimizer.param_groups
            for tensor in group["params"]
        }
        for tensor in (parameter.tensor for parameter in spoiled):
            eps = epsilons.get(id(tensor))
            if isinstance(eps, int | float) and not bool(torch.tensor(eps, dtype=tensor.dtype)):
                return True
        return False

    def _has_bad_memory(self) -> bool:
        states = [self.optimizer.state.get(p.tensor, {}) for p in self._parameters]
        return any(
            is_bad(value) or (key in _NEVER_NEGATIVE and _has_negative(local(value)))
            for state in states
            for key, value in state.items()
        )


class _OfOwnCode(Aftermath):
    """The step of an optimizer that is not torch's: what its code may do to the weights isn't known, but whether it
    was the last to write to them."""

    __slots__ = ("_parts", "_versions")

    def __init__(self, optimizer: Optimizer, *held: Any) -> None:
        super().__init__(optimizer, *held)
        self._parts = [local(tensor) for tensor in self.tensors]
        self._versions: list[int] = []

    @property
    def is_simple(self) -> bool:
        """Whether keeping the gradients is all that `keep` does."""
        return False

    def keep(self, step: int) -> None:
        """The optimizer has stepped."""
        super().keep(step)
        self._versions = [part._version for part in self._parts]

    def _gradients_are_gone(self) -> bool:
        return False  # or its code has made the zeros: what it remembers tells nothing of that

    def _has_cause(self, spoiled: Sequence[Parameter]) -> bool:
        return self._versions == [part._version for part in self._parts]


class _OfMoments(Aftermath):
    """A step of Adam. A gradient that is not finite is in both moments afterwards, so nothing needs to be kept:
    holding on to 200 small gradients takes 0.2 ms, as they are freed with cold caches."""

    __slots__ = ()

    def __init__(self, optimizer: Optimizer, *held: Any) -> None:
        super().__init__(optimizer, *held)
        self.tensors = ()

    def _bad_gradients(self, spoiled: Sequence[Parameter]) -> list[tuple[Parameter, Tensor]]:
        states = [(p, self.optimizer.state.get(p.tensor, {})) for p in spoiled]
        return [
            (parameter, local(state["exp_avg"]))
            for parameter, state in states
            if state
            and not (_finite(local(state["exp_avg"])) or _finite(local(state["exp_avg_sq"])))
        ]

    def _stepped(self, parameters: Sequence[Parameter]) -> Sequence[Parameter]:
        return parameters


def aftermath_of(
    optimizer: Optimizer, parameters: Sequence[Parameter], models: Set[nn.Module]
) -> Aftermath:
    """What is to be kept of the steps of `optimizer`, which holds these parameters of these models."""
    kind: type[Aftermath] = Aftermath
    if not type(optimizer).__module__.startswith("torch.optim"):
        kind = _OfOwnCode
    elif isinstance(optimizer, Adam | NAdam | RAdam):  # AdamW is an Adam
        kind = _OfMoments
    return kind(optimizer, parameters, models)


def _is_real_or_complex(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _numbers(group: Mapping[str, Any]) -> list[float]:
    """Rate, decay and the like of a parameter group."""
    return [
        float(value)
        for value in group.values()
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    ]


def _has_negative(tensor: Tensor) -> bool:
    """Also of a complex tensor, whose real and imaginary parts are squared apart from each other."""
    return bool(((torch.view_as_real(tensor) if tensor.is_complex() else tensor) < 0).any())


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
