"""`trainvitals export`: a run as a file for other programs."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainvitals.app.cli.output import database_option, existing_store

if TYPE_CHECKING:
    from trainvitals.app.export import Format
    from trainvitals.app.store.export import What


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--what",
    type=click.Choice(["scalars", "activations", "parameters", "histograms", "events", "findings"]),
    default="scalars",
    show_default=True,
    help="activations: statistics of the layers; parameters: those of weights, gradients and updates.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    default="csv",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (default: standard output).",
)
@database_option
def export(
    run_id: str, what: "What", form: "Format", output: Path | None, database: Path | None
) -> None:
    """Write all values of a run, one row each, in full resolution."""
    from trainvitals.app.export import ExportError, encode

    if output is None and form == "parquet" and sys.stdout.isatty():
        raise click.ClickException("A Parquet file is nothing for a terminal; name one with -o.")
    with existing_store(database) as store, ExitStack() as stack:
        if store.run(run_id) is None:
            raise click.ClickException(
                f"There is no run {run_id!r}. `trainvitals runs ls` lists them."
            )
        try:
            pieces = encode(store.export(run_id, what), form)
            file = sys.stdout.buffer if output is None else stack.enter_context(output.open("wb"))
            for piece in pieces:
                file.write(piece)
        except ExportError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # the reader has seen enough
            sys.stderr.close()
        except OSError as error:
            raise click.ClickException(f"{output} can't be written: {error.strerror}.") from error
