"""The training side of trainvitals: `import trainvitals.hooks as tv`.

    run = tv.init(project="digits", config={"lr": 1e-3})   # optional
    tv.watch(model, optimizer)
    tv.log({"train/loss": loss})
    tv.finish()

Importing this package loads neither torch nor a server; both wait for the first use of a name (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainvitals.hooks.api import (
        batch,
        current_run,
        detach,
        finish,
        init,
        log,
        preflight,
        watch,
    )
    from trainvitals.hooks.run import Run

__all__ = ["Run", "batch", "current_run", "detach", "finish", "init", "log", "preflight", "watch"]


def __getattr__(name: str) -> Any:
    if name == "Run":
        from trainvitals.hooks.run import Run

        return Run
    if name in __all__:
        from trainvitals.hooks import api

        found = globals()[name] = getattr(api, name)  # so that the next use comes here no more
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
