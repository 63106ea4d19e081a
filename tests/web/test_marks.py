"""Event lines of the loss chart: every finding is named at its line, and no label lies on another."""

import re
from itertools import combinations

import pytest

from trainvitals.app.figures.marks import ROWS, headroom, labels, stacked
from trainvitals.app.figures.svg import chart
from trainvitals.app.figures.types import Mark

NARROWEST = 460
"""Pixels of the narrowest axis with whole labels."""
WIDE = 5.7
"""Pixels of a character of 11 px in the fonts of the pages, on average."""


def boxes(marks, first, last, *, axis=NARROWEST):
    """Where the labels are drawn on an axis so wide: (row, left, right)."""
    found = []
    for note in labels(stacked(marks, first, last)):
        at = (note["x"] - first) / (last - first) * axis
        width = WIDE * len(note["text"])
        left = {"left": at, "center": at - width / 2, "right": at - width}[note["xanchor"]]
        found.append((note["yshift"], left, left + width))
    return found


def texts(marks, first=0, last=600):
    """Labels from above to below, each with its step."""
    found = sorted(stacked(marks, first, last), key=lambda mark: (mark.step, -mark.row))
    return [(mark.step, mark.label) for mark in found]


def test_two_findings_of_one_step_stand_above_each_other_the_first_on_top():
    marks = [Mark(240, "1 learning rate too high", "--crit"), Mark(240, "2 dead units", "--warn")]
    assert texts(marks) == [(240, "1 learning rate too high"), (240, "2 dead units")]
    assert [mark.row for mark in stacked(marks, 0, 600)] == [1, 0]
    assert [mark.color for mark in stacked(marks, 0, 600)] == ["--crit", "--warn"]


def test_labels_far_from_each_other_share_a_row():
    marks = [Mark(0, "1 input scale"), Mark(300, "2 plateau"), Mark(600, "3 overfitting")]
    assert [(m.row, m.anchor) for m in stacked(marks, 0, 600)] == [
        (0, "left"),
        (0, "center"),
        (0, "right"),
    ]


def test_of_many_findings_of_one_step_the_last_have_their_numbers_in_one_label():
    marks = [Mark(0, f"{number} rule number {number}") for number in range(1, 7)]
    assert texts(marks) == [(0, "1 rule number 1"), (0, "2 rule number 2"), (0, "3, 4, 5, 6")]


def test_before_a_number_is_left_out_labels_are_numbers_alone():
    near = [Mark(300 + n, f"{n + 1} activation scale depth") for n in range(3)]
    kept = stacked([*near, Mark(360, "4 overfitting"), Mark(301, "resumed")], 0, 600)
    assert [(mark.step, mark.label) for mark in kept] == [
        (300, "1 activation scale depth"),
        (301, "2 activation scale depth"),
        (302, "3"),  # of three rows the last, which a longer label would share with the fourth
        (360, "4"),
        (301, ""),  # what is no finding is a line alone where no row is left
    ]


@pytest.mark.parametrize("last", [40, 600, 100_000])
@pytest.mark.parametrize("axis", [NARROWEST, 820])
def test_no_label_lies_on_another_or_outside_the_axis(last, axis):
    shares = [0, 0, 0.02, 0.05, 0.05, 0.3, 0.31, 0.35, 0.6, 0.97, 1, 1]
    marks = [
        Mark(round(share * last), f"{number} gradient exploding depth", "--warn")
        for number, share in enumerate(shares, 1)
    ]
    drawn = boxes(marks, 0, last, axis=axis)
    assert len(drawn) >= 8
    for (row, left, right), (other_row, other_left, other_right) in combinations(drawn, 2):
        assert row != other_row or right <= other_left or other_right <= left
    assert all(left >= 0 and right <= axis for _, left, right in drawn)
    assert len({row for row, _, _ in drawn}) <= ROWS


def test_labels_have_the_room_of_the_steps_that_are_shown():
    marks = [Mark(100, "1 loss divergence"), Mark(110, "2 plateau")]
    assert [mark.row for mark in stacked(marks, 0, 10_000)] == [1, 0]
    assert [mark.row for mark in stacked(marks, 95, 115)] == [0, 0]


@pytest.fixture
def figure(make_app, tmp_path, fill, made_run):
    fill(tmp_path / "trainvitals.db", made_run("sick", steps=420, sick=True).end("failed"))
    site = make_app().test_client()
    page = site.get("/runs/sick").text
    return site.get("/api/v1/runs/sick/figures/loss").json, page


def test_a_label_has_the_number_and_the_step_that_its_finding_has_in_the_list(figure):
    drawn, page = figure
    listed = dict(re.findall(r'data-n="(\d+)"[^>]* data-first="(\d+)"', page))
    numbered = {
        note["text"].split(" ")[0]: str(note["x"])
        for note in drawn["layout"]["annotations"]
        if note.get("yref") == "paper" and note["text"][0].isdigit()
    }
    assert numbered
    assert numbered.items() <= listed.items()


def test_a_picture_has_the_labels_of_one_step_at_two_heights(figure):
    drawn, _ = figure
    two = stacked([Mark(240, "1 one"), Mark(240, "2 two")], 0, 419)
    drawn["layout"] |= {"annotations": labels(two)}
    drawn["layout"]["margin"]["t"] = headroom(two)
    heights = re.findall(r'y="([\d.]+)" class="mid" fill="[^"]*">[12] (?:one|two)<', chart(drawn))
    assert len(heights) == 2
    assert float(heights[1]) - float(heights[0]) >= 11
    assert float(heights[0]) > 11  # not cut off above
