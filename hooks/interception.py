"""The few functions of torch that are replaced while a training is watched, and put back afterwards.

Hooks on modules would make every call take torch's slow path, about 2 us each. A replaced `nn.Module.__call__`
costs 0.3 us, leaves the modules themselves as they are, and stays in place for all steps: exchanging a method
of a base class makes Python forget what it knows of all its subclasses, so what is done with a call is
exchanged instead.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling, is_dynamo_compiling
from torch.nn.utils import clip_grad
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.call import Call
from trainvitals.hooks.quiet import Quiet, watched_backward
from trainvitals.hooks.slim import LAYERS_LEFT_OUT, LEFT_OUT, Slim, SlimModules, hooks_so_far

is_tracing = torch._C._is_tracing
is_autocast_enabled = torch._C._is_any_autocast_enabled

_NONE: SlimModules = {}


_transform = torch._C._functorch.peek_interpreter_stack
_dispatch_mode = torch._C._get_dispatch_mode
_FAKE = torch._C._TorchDispatchModeKey.FAKE


def without_values() -> bool:
    """Whether tensors stand for values that there are none of: while torch traces, transforms a function or only tells
    shapes, and looking would become a part of that."""
    return is_tracing() or _transform() is not None or is_faking()


def is_faking() -> bool:
    """Whether torch only tells what shapes a computation would have."""
    return _dispatch_mode(_FAKE) is not None


def ignore(call: Call) -> None:
    """Take no notice of a call."""


class Interception:
    """Tells `sink` of calls of modules, and the others of backward passes and of gradient clipping.

    Only calls made while gradients are recorded count; of an evaluation under `no_grad` no more than that it
    happened. All functions pass on what the replaced ones return and raise. What they tell must not raise.
    """

    def __init__(
        self,
        quiet: Quiet,
        let_go: Callable[[Tensor], None],
        before_backward: Callable[[Any, bool], bool],
        after_backward: Callable[[], None],
        before_grad: Callable[[Any], None],
        before_clipping: Callable[[Any], None],
        before_norm_clipping: Callable[[Any], None],
        without_gradients: Callable[[nn.Module, tuple[Any, ...]], None],
    ) -> None:
        """`let_go`, `before_backward` and `after_backward` are those of `quiet.watched_backward`.

        `before_clipping` gets lists of the gradients that any clipping is about to change, or a norm to be
        taken of; `before_norm_clipping` the total norm. `without_gradients` gets modules that were called under
        `no_grad`, and their arguments."""
        self._use: Callable[[Callable[[Call], None], SlimModules, int], None] | None = None
        self._sent: tuple[Callable[[Call], None], SlimModules, int] = (ignore, _NONE, 0)
        """What it was told, or is to be told when this is not aside any more."""
        self._calls_replaced = Replaced(nn.Module, "__call__", self._calls)
        self._replaced = [
            self._calls_replaced,
            Replaced(torch.autograd, "backward", self._backward),
            Replaced(torch.autograd, "grad", self._grad),
            Replaced(clip_grad, "_group_tensors_by_device_and_dtype", self._clipping),
        ]
        if hasattr(clip_grad, "_clip_grads_with_norm_"):  # from torch 2.6 on
            self._replaced += [
                Replaced(clip_grad, "_clip_grads_with_norm_", self._norm),
                Replaced(nn.utils, "clip_grads_with_norm_", self._norm),
            ]
        self._quiet, self._let_go = quiet, let_go
        self._before_backward = before_backward
        self._after_backward = after_backward
        self._before_grad = before_grad
        self._before_clipping = before_clipping
        self._before_norm_clipping = before_norm_clipping
        self._without_gradients = without_gradients

    def attach(self) -> None:
        """Put the replacements in place."""
        for replaced in self._replaced:
            replaced.put()

    def detach(self) -> None:
        """Put the originals back, unless someone else has wrapped ours since: then they only pass on."""
        self.send_calls_to(ignore)
        for replaced in self._replaced:
            replaced.take_back()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """With the originals for a while; where someone else has wrapped ours, they only pass on."""
        on, self._quiet.on = self._quiet.on, False
        if self._use is not None:
            self._use(ignore, _NONE, 0)
        try:
            with all_aside(self._replaced):
                yield
        finally:
            self._quiet.on = on
            if self._use is not None:
                self._use(*self._sent)

    def send_calls_to(self, take: Callable[[Call], None], slim: SlimModules = _NONE) -> None:
        """What is to be done with each call from now on; those of `slim` modules come without what is left out."""
        self._sent = (take, slim, hooks_so_far())
        if self._use is not None and self._calls_replaced.active:
            self._use(*self._sent)

    def calls_left_alone(self) -> AbstractContextManager[None]:
        """With torch's own calls of modules for a moment."""
        return self._calls_replaced.aside()

    def _calls(self, original: Callable[..., Any], mine: "Replaced") -> Callable[..., Any]:
        take: Callable[[Call], None] = ignore
        slim, hooks = _NONE, 0
        is_grad_enabled, float32 = torch.is_grad_enabled, torch.float32
        base, handle, no_input = nn.Module, RemovableHandle, Slim.INPUT
        quiet, without_gradients = self._quiet, self._without_gradients
        own_type, owned = nn.Parameter, nn.Parameter()
        unwrapped = original is getattr(nn.Module, "_wrapped_call_impl", None)

        def use(new_take: Callable[[Call], None], new_slim: SlimModules, new_hooks: int) -> None:
            nonlocal take, slim, hooks
            take, slim, hooks = new_take, new_slim, new_hooks

        # One frame less where nobody else has replaced it: this is torch's own `__call__`, written out.
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if is_dynamo_compiling():  # nothing of ours becomes a part of the graph
                return original(self, *args, **kwargs)
            try:
                how = slim.get(self)
            except TypeError:  # no watched one: torch can't list a model of modules without a hash
                return original(self, *args, **kwargs)
            if how is not None and (handle.next_id != hooks or "forward" in self.__dict__):
                how = None
            if isinstance(how, tuple):
                # Not under autocast, which has the values in another precision. Others may want to see the layers.
                if (
                    len(args) == 1
                    and not kwargs
                    and type(args[0]) is Tensor
                    and is_grad_enabled()
                    and not is_tracing()
                    and not is_autocast_enabled()
                    and base.__call__ is call
                    and len(how) == len(self._modules)
                    and type(how[0]._parameters.get("weight", owned)) is own_type
                    and type(how[-1]._parameters.get("weight", owned)) is own_type
                ):
                    (output,) = args
                    layers: Any = self._modules.values()
                    for layer, usual in zip(layers, how, strict=False):
                        own = layer.__dict__
                        if layer is not usual or "forward" in own or "_compiled_call_impl" in own:
                            output = layer(output)
                        else:  # all that torch would do more is to find that there are no hooks
                            output = layer.forward(output)
                    if len(quiet.calls) >= quiet.most_rows and self in quiet.roots:
                        quiet.push_out()
                    take((self, args, LAYERS_LEFT_OUT, output))
                    return output
                how = None
            if self._compiled_call_impl is not None:
                output = self._compiled_call_impl(*args, **kwargs)
            else:
                output = self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
            if is_grad_enabled():
                if how is None:
                    take((self, args, kwargs, output))
                elif how is no_input:
                    take((self, LEFT_OUT, LEFT_OUT, output))
                # Autocast would have it in another precision, `functional_call` made of other weights.
                elif output.dtype is float32 and type(self._parameters["weight"]) is own_type:
                    take((self, args, kwargs, LEFT_OUT))
                else:
                    take((self, args, kwargs, output))
            elif mine.active:
                without_gradients(self, args)
            return output

        def call_wrapped(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            output = original(self, *args, **kwargs)
            if is_dynamo_compiling() or self.__hash__ is None:
                return output
            if is_grad_enabled():
                take((self, args, kwargs, output))
            elif mine.active:
                without_gradients(self, args)
            return output

        self._use = use
        return call if unwrapped else call_wrapped

    def _backward(self, original: Callable[..., Any], mine: "Replaced") -> Callable[..., Any]:
        def before(tensors: Any, retained: bool) -> bool:
            return mine.active and self._before_backward(tensors, retained)

        return watched_backward(original, self._quiet, self._let_go, before, self._after_backward)

    def _grad(self, original: Callable[..., Any], mine: "Replaced") -> Callable[..., Any]:
        """`torch.autograd.grad` may be a part of the forward pass, which goes on after it."""

        def grad(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            if mine.active and not is_compiling() and not kwargs.get("create_graph"):
                self._before_grad(outputs)
            return original(outputs, *args, **kwargs)

        return grad

    def _clipping(self, original: Callable[..., Any], mine: "Replaced") -> Callable[..., Any]:
        def group_tensors(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if mine.active and not is_dynamo_compiling():
                self._before_clipping(tensors)
            return original(tensors, *args, **kwargs)

        return group_tensors

    def _norm(self, original: Callable[..., Any], mine: "Replaced") -> Callable[..., Any]:
        def clip_grads_with_norm(
            parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            if mine.active and not is_dynamo_compiling():
                self._before_norm_clipping(total_norm)
            return original(parameters, max_norm, total_norm, *args, **kwargs)

        return clip_grads_with_norm


class Replaced:
    """One attribute of a class or a module, and the function that stands in for it."""

    def __init__(
        self,
        owner: Any,
        name: str,
        make: Callable[[Callable[..., Any], "Replaced"], Callable[..., Any]],
    ) -> None:
        self._owner, self._name, self._make = owner, name, make
        self._original: Any = None
        self._mine: Any = None
        self.active = False

    def put(self) -> None:
        if self.active:
            return
        self.active = True
        self._original = getattr(self._owner, self._name)
        self._mine = self._make(self._original, self)
        self._mine.__wrapped__ = self._original
        setattr(self._owner, self._name, self._mine)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """With the original in place for a while; where somebody has wrapped ours, it stays and is not active."""
        if not self.active:
            yield
            return
        self.active, uncovered = False, getattr(self._owner, self._name) is self._mine
        if uncovered:
            setattr(self._owner, self._name, self._original)
        try:
            yield
        finally:
            if uncovered and getattr(self._owner, self._name) is not self._original:
                self.put()  # over what somebody has put there meanwhile
            else:
                self.active = True
                if uncovered:
                    setattr(self._owner, self._name, self._mine)

    def take_back(self) -> None:
        if not self.active:
            return
        self.active = False
        if getattr(self._owner, self._name) is self._mine:
            setattr(self._owner, self._name, self._original)
        self._original = self._mine = None


@contextmanager
def all_aside(replaced: Sequence[Replaced]) -> Iterator[None]:
    """With the originals of all of them for a while."""
    with ExitStack() as stack:
        for one in replaced:
            stack.enter_context(one.aside())
        yield
