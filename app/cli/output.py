"""What commands print, and how they fail."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from trainvitals.app.rules.policy import Policy
    from trainvitals.app.settings import Settings
    from trainvitals.app.store import Store

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def database_option(command: F) -> F:
    """Add `--database`."""
    return click.option(
        "--database",
        type=click.Path(path_type=Path, dir_okay=False),
        help="SQLite database file (default: TRAINVITALS_DATABASE, then the user's data folder).",
    )(command)


def policy_option(command: F) -> F:
    """Add `--policy`."""
    return click.option(
        "--policy",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Policy file (default: TRAINVITALS_RULES, then trainvitals.toml here).",
    )(command)


def policy_at(path: Path | None) -> "Policy":
    """The policy of the file, or of the default one where it exists. Raises ClickException for a wrong one."""
    from trainvitals.app.policyfile import read

    reading = read(path or settings_from().rules)
    if path is not None and not reading.exists:
        raise click.ClickException(f"There is no policy {path}.")
    if reading.problems:
        said = "\n".join(f"  {problem}" for problem in reading.problems)
        raise click.ClickException(f"The policy {reading.path} is wrong:\n{said}")
    return reading.policy


@contextmanager
def recorded_errors() -> Iterator[None]:
    """What reading a recorded run may raise, as ClickException."""
    from trainvitals.app.store import StoreError
    from trainvitals.hooks.wire.codec import WireError

    try:
        yield
    except (ValueError, LookupError, OSError, StoreError, WireError) as error:
        raise click.ClickException(str(error.args[0] if error.args else error)) from error


def print_json(value: object) -> None:
    """`value` as indented JSON on standard output; NaN and infinity become null."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, at most 60 characters."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(head), *cells]) for i in range(len(head))]
    for line in [list(head), *cells]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(text.rstrip())


def settings_from(**overrides: Any) -> "Settings":
    """Settings of the environment and the given options. Raises ClickException."""
    from trainvitals.app.settings import Settings, SettingsError

    try:
        return Settings.from_env(**overrides)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def existing_file(database: Path | None) -> Iterator[Path]:
    """The file `database` or the default one. Raises ClickException when there is none, or it can't be used."""
    from trainvitals.app.store import StoreError

    path = settings_from(database=database).database
    if not path.is_file():
        raise click.ClickException(
            f"There is no database at {path}. Name one with --database, or start `trainvitals serve`."
        )
    try:
        yield path
    except StoreError as error:
        raise click.ClickException(f"The database {path}: {error}") from error


@contextmanager
def existing_store(database: Path | None) -> Iterator["Store"]:
    """The store in `database` or the default one. Raises ClickException when there is none."""
    from trainvitals.app.store import Store

    with existing_file(database) as path, Store.open(path) as store:
        yield store


def _cell(value: object) -> str:
    # A name from a training may hold control characters, which a terminal would obey.
    text = "".join(c if c.isprintable() else " " for c in str("" if value is None else value))
    return text if len(text) <= 60 else text[:59] + "…"
