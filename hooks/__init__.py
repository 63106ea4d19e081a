"""The training side of trainvitals: `import trainvitals.hooks as tv`.

    run = tv.init(project="digits", config={"lr": 1e-3})   # optional
    tv.watch(model, optimizer)
    tv.log({"train/loss": loss})
    tv.finish()

Importing this package loads neither torch nor a server; both wait for the first use of a name (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainvitals.hooks.api import (
        batch,
        current_run,
        detach,
        finish,
        init,
        log,
        paused,
        preflight,
        should_stop,
        watch,
    )
    from trainvitals.hooks.reactions import FindingError
    from trainvitals.hooks.run import Run
    from trainvitals.hooks.wire.verdict import Finding

_CLASSES = {
    "Finding": "trainvitals.hooks.wire.verdict",
    "FindingError": "trainvitals.hooks.reactions",
    "Run": "trainvitals.hooks.run",
}
__all__ = [
    "Finding",
    "FindingError",
    "Run",
    "batch",
    "current_run",
    "detach",
    "finish",
    "init",
    "log",
    "paused",
    "preflight",
    "should_stop",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    if name in __all__:
        from trainvitals.hooks import api

        found = globals()[name] = getattr(api, name)  # so that the next use comes here no more
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
