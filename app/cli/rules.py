"""`trainvitals rules`: what the rules are, what a policy makes of them, what another would have made of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainvitals.app.cli.output import (
    database_option,
    existing_store,
    json_option,
    policy_at,
    policy_option,
    print_json,
    print_table,
    recorded_errors,
    settings_from,
)

if TYPE_CHECKING:
    from trainvitals.app.backtest import Change
    from trainvitals.app.rules.base import Rule
    from trainvitals.app.rules.finding import Finding
    from trainvitals.app.rules.policy import Policy


@click.group()
def rules() -> None:
    """Look at the rules, check a policy, try it on a run."""


@rules.command("ls")
@policy_option
@json_option
def list_rules(policy: Path | None, as_json: bool) -> None:
    """List the rules as the policy has them."""
    from trainvitals.app.rules import RULES
    from trainvitals.app.rules.describe import describe

    chosen = policy_at(policy)
    described = [describe(rule, chosen) for rule in RULES]
    if as_json:
        print_json(described)
        return
    print_table(
        ["RULE", "STATE", "CHANGED", "FINDS"],
        [
            [item.id, "on" if item.enabled else "off", "; ".join(item.changes), item.finds]
            for item in described
        ],
    )


@rules.command("show")
@click.argument("rule", required=False)
@click.option("--cost", is_flag=True, help="Measure what rules cost the evaluator, by a replay.")
@click.option(
    "--run", metavar="PATH_OR_RUN", help="What to replay for --cost (default: the newest run)."
)
@policy_option
@database_option
@json_option
def show_rule(
    rule: str | None,
    cost: bool,
    run: str | None,
    policy: Path | None,
    database: Path | None,
    as_json: bool,
) -> None:
    """Say all about RULE, or with --cost what each rule costs."""
    chosen = policy_at(policy)
    kind = None if rule is None else _rule(rule)
    if cost:
        _cost(kind, run, chosen, database, as_json)
    elif kind is None:
        raise click.UsageError(
            "Name a rule (`trainvitals rules ls` lists them), or ask for --cost."
        )
    else:
        _show(kind, chosen, as_json)


@rules.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check the policy FILE (default: TRAINVITALS_RULES, then trainvitals.toml). Exit code 1 when it is wrong."""
    from trainvitals.app.policyfile import read
    from trainvitals.app.rules.describe import in_words

    path = settings_from().rules if file is None else file
    reading = read(path)
    if as_json:
        print_json(
            {
                "path": reading.path,
                "exists": reading.exists,
                "problems": reading.problems,
                "digest": reading.policy.digest,
            }
        )
    elif reading.problems:
        for problem in reading.problems:
            click.echo(f"{path}: {problem}", err=True)
    elif reading.exists:
        click.echo(f"{path} is right: {in_words(reading.policy)}")
    if not reading.exists and file is not None:
        raise click.ClickException(f"There is no file {path}.")
    if not reading.exists and not as_json:
        click.echo(f"There is no {path}: every rule has its defaults.")
    if reading.problems:
        raise SystemExit(1)


@rules.command("backtest")
@click.argument("target", metavar="PATH_OR_RUN")
@policy_option
@database_option
@json_option
def backtest(target: str, policy: Path | None, database: Path | None, as_json: bool) -> None:
    """Show what the policy of --policy would have made of a run, against the one in force.

    Without --policy: what the one in force makes of it, against the defaults.
    """
    from trainvitals.app.backtest import backtest as try_out
    from trainvitals.app.rules.policy import DEFAULTS

    in_force = policy_at(None)
    before, after = (in_force, policy_at(policy)) if policy else (DEFAULTS, in_force)
    if database is None and not Path(target).exists():
        database = settings_from().database
    with recorded_errors():
        changes = try_out(target, database, before, after)
    if as_json:
        print_json(
            {
                "before": before.digest,
                "after": after.digest,
                "changes": [
                    {"kind": item.kind, "key": item.key, "before": item.before, "after": item.after}
                    for item in changes
                ],
            }
        )
    else:
        names = ("IN FORCE", "TRIED") if policy else ("DEFAULTS", "IN FORCE")
        _print_changes(changes, *names)


def _rule(name: str) -> "type[Rule]":
    from difflib import get_close_matches

    from trainvitals.app.rules import RULES

    known = {rule.id: rule for rule in RULES}
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise click.ClickException(
        f"There is no rule {name!r}.{meant} `trainvitals rules ls` lists them."
    )


def _show(rule: "type[Rule]", policy: "Policy", as_json: bool) -> None:
    from trainvitals.app.rules.about import about
    from trainvitals.app.rules.describe import describe

    said, text = describe(rule, policy), about(rule)
    if as_json:
        print_json({"rule": said, "about": text})
        return
    click.echo(f"{rule.id}: {text.finds}\n{text.severity}")
    if said.changes:
        click.echo(f"By the policy: {'; '.join(said.changes)}")
    for head, content in (
        ("Fires", text.formula),
        ("Applies to", text.applies),
        ("Guards", text.guards),
        ("Shows", text.evidence),
        ("Remedy", text.remedy),
        ("False alarms", text.false_alarms),
        ("Sources", text.sources),
    ):
        click.echo(f"\n{head}")
        for line in [content] if isinstance(content, str) else content:
            click.echo(click.wrap_text(" ".join(line.split()), 100, "  ", "  "))
    if said.thresholds:
        click.echo()
        print_table(
            ["THRESHOLD", "VALUE", "DEFAULT"],
            [[item.name, f"{item.value:g}", f"{item.default:g}"] for item in said.thresholds],
        )


def _cost(
    rule: "type[Rule] | None",
    run: str | None,
    policy: "Policy",
    database: Path | None,
    as_json: bool,
) -> None:
    from trainvitals.app.diagnose import recorded
    from trainvitals.app.rulecost import measure

    if run is None:
        with existing_store(database) as store:
            newest = store.runs(limit=1)
        if not newest:
            raise click.ClickException("No run is stored yet. Name a recorded one with --run.")
        run = newest[0].id
    if database is None and not Path(run).exists():
        database = settings_from().database
    with recorded_errors():
        samples, costs = measure(recorded(run, database), policy)
    costs = [cost for cost in costs if rule is None or cost.rule == rule.id]
    if as_json:
        print_json({"run": run, "samples": samples, "costs": costs})
        return
    click.echo(f"Replayed {run}: {samples} samples of statistics.")
    print_table(
        ["RULE", "µs A SAMPLE", "SHARE", "IN ALL"],
        [
            [c.rule, f"{1e6 * c.per_sample:.1f}", f"{100 * c.share:.1f} %", f"{c.seconds:.3f} s"]
            for c in costs
        ],
    )


def _print_changes(changes: "list[Change]", before: str, after: str) -> None:
    if not changes:
        click.echo("Nothing fires under either policy.")
        return
    print_table(
        ["", "FINDING", before, after],
        [[item.kind, item.key, _in_short(item.before), _in_short(item.after)] for item in changes],
    )


def _in_short(finding: "Finding | None") -> str:
    if finding is None:
        return "–"
    known = ", acknowledged" if finding.acknowledged else ""
    cause = f", by {finding.cause}" if finding.cause else ""
    return f"{finding.severity} since {finding.first_step}, {finding.state}{cause}{known}"
