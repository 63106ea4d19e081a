"""Who may import whom (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FORBIDDEN = {
    "hooks/wire": {"torch", "flask", "plotly", "sqlite3", "sqlite_utils", "trainvitals.app"},
    "hooks": {"flask", "plotly", "sqlite3", "sqlite_utils", "trainvitals.app"},
    "app": {"torch"},
    "app/store": {"torch", "flask", "plotly"},
    "app/rules": {"torch", "flask", "plotly", "sqlite3", "sqlite_utils", "urllib3", "time"},
    "app/figures": {
        "torch",
        "flask",
        "sqlite3",
        "sqlite_utils",
        "trainvitals.app.store.connection",
    },
    "app/alerts": {"torch", "flask", "sqlite3", "sqlite_utils"},
}
ALLOWED = {"app/demo/trainings.py": {"torch"}}  # runs in a process of its own, like a user's script


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_above_or_beside_it(package):
    crossed = []
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for module in imports(path):
            parts = module.split(".")
            prefixes = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
            if prefixes & FORBIDDEN[package] - ALLOWED.get(name, set()):
                crossed.append(f"{name}: {module}")
    assert not crossed


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {module.split(".")[0] for module in run.stdout.split()}


def test_the_server_starts_without_torch():
    assert "torch" not in loaded_by(
        "from trainvitals.app.web import create_app; import trainvitals.app.evaluator"
    )


def test_the_command_line_starts_without_torch():
    assert "torch" not in loaded_by("import trainvitals.app.cli")


def test_the_hooks_load_neither_flask_nor_plotly_nor_sqlite():
    loaded = loaded_by(
        "import torch; before = set(sys.modules); import trainvitals.hooks as tv; tv.watch, tv.init"
    )
    assert not loaded & {"flask", "plotly", "sqlite3", "sqlite_utils", "gunicorn"}


def test_the_shared_records_load_without_torch():
    assert "torch" not in loaded_by("import trainvitals.hooks.wire.codec, trainvitals.hooks.spool")
