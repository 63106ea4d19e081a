"""`python -m trainvitals.hooks.checks script.py:factory [--json]`: what `trainvitals preflight` starts.

Ends with 0 when nothing is wrong, 1 when something is, 2 when nothing could be checked.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from trainvitals.hooks.checks import PreflightError, check


def load(target: str) -> Any:
    """The function that `script.py:factory` names. Raises PreflightError."""
    path, _, name = target.rpartition(":")
    if not path or not name:
        raise PreflightError(f"Expected script.py:factory; got {target!r}.")
    file = Path(path)
    if not file.is_file():
        raise PreflightError(f"There is no file {path}.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise PreflightError(f"{path} is no Python file.")
    sys.path.insert(0, str(file.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise PreflightError(f"{path} has no function {name}.")
    return factory


def main() -> int:
    """Check what the factory makes, and print it."""
    parser = argparse.ArgumentParser(prog="trainvitals preflight")
    parser.add_argument("target", metavar="script.py:factory")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        made = load(arguments.target)()
        if not isinstance(made, tuple) or len(made) != 4:
            raise PreflightError(
                "The factory has to return (model, batch_or_loader, loss_fn, optimizer); got "
                f"{type(made).__name__}."
            )
        report = check(*made)
    except PreflightError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(report.to_json() if arguments.json else report)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
