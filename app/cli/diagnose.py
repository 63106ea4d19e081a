"""`trainvitals diagnose`: run the rules over something recorded, without a server."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainvitals.app.cli.output import (
    database_option,
    json_option,
    policy_at,
    policy_option,
    print_json,
    recorded_errors,
    settings_from,
)

if TYPE_CHECKING:
    from trainvitals.app.rules.finding import Finding

FIELDS = (
    "rule",
    "severity",
    "state",
    "first_step",
    "last_step",
    "layers",
    "root",
    "evidence",
    "title",
    "remedy",
)
"""What `--json` prints of each finding."""


@click.command()
@click.argument("target", metavar="PATH_OR_RUN")
@policy_option
@database_option
@json_option
def diagnose(target: str, policy: Path | None, database: Path | None, as_json: bool) -> None:
    """Judge a run by all rules.

    PATH_OR_RUN is a spool folder (.trainvitals/<run>), a database file, or the id of a run in the database.
    """
    from trainvitals.app.diagnose import judge

    if database is None and not Path(target).exists():
        database = settings_from().database
    with recorded_errors():
        engine = judge(target, database, policy_at(policy))
    findings = engine.findings()
    if as_json:
        print_json([{name: getattr(item, name) for name in FIELDS} for item in findings])
    elif findings:
        _print(findings)
    elif checked := sum(state.judged for state in engine.states()):
        click.echo(f"{checked} check{'s' if checked > 1 else ''} found nothing wrong.")
    else:
        click.echo("Not judged: too little was recorded for any check.")


def _print(findings: "list[Finding]") -> None:
    from trainvitals.app.alerts.message import layer_names, text_of

    for item in findings:
        if any(other.tells(item) for other in findings):
            continue  # a sign stands in what its root has seen
        lead = f"{item.severity.upper():8}" if item.root else "       ↳"
        click.echo(_printable(f"{lead} {item.title}"))
        click.echo(f"         steps {item.first_step:,} to {item.last_step:,}, {item.state}")
        for label, text in (
            ("layers", layer_names(item.layers, item.concerned)),
            ("seen", text_of(item.evidence.get("seen"))),
            ("expected", text_of(item.evidence.get("expected"))),
            ("do this", item.remedy if item.root else ""),
        ):
            if text:
                click.echo(_printable(f"         {label}: {text}"))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
