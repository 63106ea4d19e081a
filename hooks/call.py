"""What is noted of a call of a module."""

from typing import Any, TypeAlias

from torch import nn

Call: TypeAlias = tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]
"""Module, arguments, keyword arguments and output of one call that has returned."""
