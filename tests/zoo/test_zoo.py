"""Every condition of the zoo: right values, an unchanged training, a clean end, and the table of what is recorded."""

from collections.abc import Callable

import pytest

from tests.zoo import checks, compatibility
from tests.zoo.compatibility import Table
from tests.zoo.conditions import CONDITIONS
from tests.zoo.harness import Condition, Run
from tests.zoo.session import Role

Runs = Callable[[Condition, Role], list[Run]]

every_condition = pytest.mark.parametrize(
    "condition",
    [
        pytest.param(
            condition,
            id=condition.id,
            marks=[
                *[pytest.mark.slow] * condition.slow,
                pytest.mark.skipif(bool(condition.skip), reason=condition.skip or "-"),
            ],
        )
        for condition in CONDITIONS
    ],
)


@every_condition
def test_recorded_values_are_right(condition: Condition, runs: Runs) -> None:
    recorded = runs(condition, Role.EVERY)[0].recorded
    readings = runs(condition, Role.REFERENCE)[0].readings
    assert recorded is not None and readings
    if set(condition.missing) == set(checks.FACETS):  # the training cannot be seen at all
        readings = []
    kinds = ("activation",) if condition.sharded else ("activation", "parameter")
    assert list(checks.differences(recorded, readings, condition.tolerance, kinds)) == []
    if condition.sharded:
        return
    assert list(checks.histogram_differences(recorded, readings)) == []


@every_condition
@pytest.mark.parametrize("role", [Role.EVERY, Role.DEFAULT])
def test_training_is_the_same_bit_for_bit(condition: Condition, role: Role, runs: Runs) -> None:
    for plain, watched in zip(runs(condition, Role.PLAIN), runs(condition, role), strict=True):
        assert watched.left["losses"] == plain.left["losses"]
        assert watched.left == plain.left


@every_condition
def test_nothing_fails_inside_the_hooks(condition: Condition, runs: Runs) -> None:
    recorded = runs(condition, Role.DEFAULT)[0].recorded
    assert recorded is not None
    said = [event.message for event in recorded.events("monitor")]
    assert [message for message in said if "failed" in message] == []
    assert recorded.events("nonfinite") == []


@every_condition
@pytest.mark.parametrize("role", [Role.EVERY, Role.DEFAULT])
def test_nothing_stays_behind(condition: Condition, role: Role, runs: Runs) -> None:
    for plain, watched in zip(runs(condition, Role.PLAIN), runs(condition, role), strict=True):
        assert watched.changed == []
        assert watched.traces == plain.traces


@every_condition
def test_the_table_says_what_was_recorded(condition: Condition, runs: Runs, table: Table) -> None:
    recorded = runs(condition, Role.EVERY)[0].recorded
    poisoned = runs(condition, Role.POISONED)[0]
    assert recorded is not None and poisoned.recorded is not None and poisoned.poisoned
    shares = checks.shares(recorded, runs(condition, Role.REFERENCE)[0].readings)
    seen = checks.nonfinite_seen(poisoned.recorded, poisoned.poisoned)
    incomplete = {facet for facet, share in shares.items() if not share.complete}
    if seen != "step and place":
        incomplete.add("non-finite watch")
    assert incomplete == set(condition.missing), (shares, seen)
    cells = {facet: str(share) for facet, share in shares.items()} | {"non-finite watch": seen}
    row = compatibility.row(condition.name, cells, condition.missing, condition.note)
    assert table.agrees(condition.name, row)


def test_the_table_has_a_row_for_each_condition(table: Table) -> None:
    names = [condition.name for condition in CONDITIONS]
    assert table.write or list(compatibility.committed_rows()) == names
