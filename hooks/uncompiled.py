"""Functions of ours that the training's compiled code calls: they run as they are written."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._C._dynamo import eval_frame

Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """The same function, of which `torch.compile` makes no part of a graph, nor of anything that it calls.

    The wrapper that `torch.compiler.disable` gives takes 1 us at every call. The compiler is told once instead.
    """
    tell = getattr(eval_frame, "set_code_exec_strategy", None)
    if tell is None:  # an older torch
        disabled: Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled
    skip = eval_frame._FrameAction.SKIP
    tell(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    vars(function)["_torchdynamo_disable"] = True
    return function
