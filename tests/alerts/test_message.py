"""What an alert says."""

import math

import pytest

from trainvitals.app.alerts.message import MAX_CONSEQUENCES, compose, layer_names, text_of
from trainvitals.app.alerts.plan import plan
from trainvitals.app.store.types import Run


@pytest.fixture
def run():
    import msgspec

    values = {
        "id": "run-1",
        "project": "p",
        "name": "digits",
        "attempts": ["a1"],
        "created": 1.0,
        "last_seen": 2.0,
        "last_step": 120,
    }
    defaults = {"config": {}, "tags": [], "environment": {}, "world_size": 1, "version": 1}
    defaults |= {"status_reported": "", "end_message": ""}
    return msgspec.convert(defaults | values, Run)


@pytest.mark.parametrize(
    ("names", "concerned", "told"),
    [
        ([], 0, ""),
        (["fc1"], 1, "fc1"),
        ([""], 1, "(root)"),
        (["fc2", "fc1"], 2, "fc1, fc2"),
        ([f"fc{n}" for n in range(48, 0, -1)], 48, "fc1 … fc48, 48 layers"),
        ([f"fc{n}" for n in range(50)], 200, "fc0 … fc49, 50 of 200 layers"),
        (["b.2.conv", "b.10.conv", "b.1.conv", "head"], 4, "b.1.conv … b.10.conv, head, 4 layers"),
        (["a", "b", "c", "d", "e", "f"], 6, "a, b, c, d, …, 6 layers"),
    ],
)
def test_layers_are_told_in_few_words(names, concerned, told):
    assert layer_names(names, concerned) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, ""),
        (0.000123456, "0.000123"),
        (12345, "12,345"),
        ("nan", "nan"),
        (math.nan, "nan"),
        (True, "True"),
        ([1e-4, 1e-2], "0.0001, 0.01"),
        ({"max": 2.0}, "max 2"),
    ],
)
def test_evidence_reads_as_text(value, told):
    assert text_of(value) == told


def test_consequences_are_lines_of_their_root(finding, run):
    root = finding("nan:fc1", severity="critical", title="NaN in fc1")
    followers = [
        finding(f"b{n}", root=False, cause="nan:fc1", title=f"consequence {n}", first_step=n)
        for n in range(MAX_CONSEQUENCES + 3)
    ]
    (row,) = plan("run-1", [], [root], 5.0)
    alert = compose(row, [root, *followers, finding("other")], run, "http://x", opened=5.0)
    assert alert.title == "NaN in fc1"
    assert alert.consequences[0] == "consequence 0 (from step 0)"
    assert len(alert.consequences) == MAX_CONSEQUENCES
    assert alert.more_consequences == 3
    assert alert.link.startswith("http://x/runs/run-1#")


def test_a_root_that_is_a_consequence_by_now_says_nothing(finding, run):
    (row,) = plan("run-1", [], [finding()], 5.0)
    demoted = finding(root=False, cause="nan:fc1")
    assert compose(row, [demoted], run, "http://x", opened=5.0) is None
    assert compose(row, [], run, "http://x", opened=5.0) is None


def test_an_opening_that_is_over_before_it_is_sent_says_so(finding, run):
    (row,) = plan("run-1", [], [finding()], 5.0)
    alert = compose(row, [finding(state="resolved")], run, "http://x", opened=5.0)
    assert alert.over
    assert not alert.resolved
