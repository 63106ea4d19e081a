"""The comparison: settings, curves, and where layers part."""

import msgspec
import numpy as np
import pytest

from trainvitals.app.figures.base import unpacked
from trainvitals.app.figures.compare import parting, style
from trainvitals.hooks.wire.records import Step

FIRST_NAN = 352
"""The first step at which the sick run's loss is NaN."""


@pytest.fixture(scope="module")
def runs(made_run):
    return (
        made_run("healthy", steps=420, name="steady").end(),
        made_run("twin", steps=300).end(),
        made_run("sick", steps=420, sick=True, name="<b>sick</b>").end("failed"),
        made_run("other", steps=60, names={"stem.conv": "front"}),
        made_run("bare", steps=0),
    )


@pytest.fixture(scope="module")
def site(open_app, tmp_path_factory, fill, runs):
    path = tmp_path_factory.mktemp("site") / "trainvitals.db"
    fill(path, *runs)
    return open_app(path).test_client()


def renamed(record, name, other):
    """A record with the scalar `name` under the name `other`."""
    if not isinstance(record, Step):
        return record
    scalars = {other if key == name else key: value for key, value in record.scalars.items()}
    return msgspec.structs.replace(record, scalars=scalars)


def layers(site, runs, statistic="update_ratio"):
    return site.get(f"/api/v1/compare/layers?runs={runs}&statistic={statistic}").json


def test_where_two_runs_part_is_told_by_step_layer_and_size(site):
    # the sick run's weights change 180 times faster from step 240 on, from the 7th layer on
    answer = layers(site, "sick,healthy")
    assert answer["parting"].startswith("They part first at step 240 in block2.conv1 and ")
    assert "180 times larger in <b>sick</b> than in steady" in answer["parting"]
    assert layers(site, "healthy,sick")["parting"].count("180 times smaller in steady") == 1


def test_the_parting_is_the_same_whatever_is_shown(site):
    told = {
        layers(site, "sick,healthy", key)["parting"] for key in ("std", "grad_rms", "dead_fraction")
    }
    assert told == {layers(site, "sick,healthy")["parting"]}


def test_runs_that_differ_by_chance_do_not_part(site):
    assert "stay within" in layers(site, "twin,healthy")["parting"]


def test_layers_of_only_one_run_are_left_out(site):
    meta = layers(site, "other,healthy")["layout"]["meta"]
    assert "front" not in meta["lines"]
    assert "stem.relu" in meta["lines"]


def test_a_run_without_layers_is_told_so(site):
    answer = layers(site, "bare,healthy")
    assert answer["parting"] in ("These two runs have no layer in common.", answer["parting"])
    assert answer["data"] == []


def test_training_losses_are_compared_whatever_runs_call_them(
    make_app, tmp_path, fill, made_run, runs
):
    other = made_run("renamed", steps=60)
    other.records = [renamed(record, "loss", "train/loss") for record in other.records]
    fill(tmp_path / "trainvitals.db", *runs)
    fill(tmp_path / "trainvitals.db", other)
    site = make_app().test_client()
    page = site.get("/compare?runs=healthy,renamed").text
    assert '<option value="" selected>training loss</option>' in page
    figure = site.get("/api/v1/compare/curves?runs=healthy,renamed&name=").json
    assert [trace["name"] for trace in figure["data"]] == ["steady", "renamed"]
    assert ">training loss<" not in site.get("/compare?runs=healthy,twin").text


def test_curves_lie_over_each_other_and_a_run_without_one_is_left_out(site):
    figure = site.get("/api/v1/compare/curves?runs=healthy,sick,bare").json
    lines = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    assert [trace["name"] for trace in lines] == ["steady", "&lt;b&gt;sick&lt;/b&gt;"]
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in lines}) == 2


def test_what_happened_in_runs_is_marked_in_their_colours_and_nan_at_its_own_steps(site):
    figure = site.get("/api/v1/compare/curves?runs=healthy,sick").json
    color = style(1)["color"]
    (crosses,) = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    assert crosses["marker"]["line"]["color"] == color
    assert list(unpacked(crosses["x"])) == list(range(FIRST_NAN, 420))
    lines = {(shape["x0"], shape["line"]["color"]) for shape in figure["layout"]["shapes"]}
    assert (FIRST_NAN, color) in lines
    texts = [note["text"] for note in figure["layout"]["annotations"]]
    assert any(text.startswith("first NaN/Inf: ") for text in texts)
    assert FIRST_NAN in [shape["x0"] for shape in layers(site, "sick,healthy")["layout"]["shapes"]]


def test_settings_that_differ_come_first_and_the_same_are_counted(site):
    page = site.get("/compare?runs=healthy,sick,twin").get_data(as_text=True)
    assert "the same in all: 3 values" in page
    assert "&lt;b&gt;sick&lt;/b&gt;" in page
    assert "<b>sick" not in page


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("runs=", 400),
        ("runs=" + ",".join(f"r{n}" for n in range(21)), 400),
        ("runs=healthy,none", 404),
        ("runs=healthy,../..", 404),
    ],
)
def test_a_wrong_choice_of_runs_says_what_is_possible(site, query, status):
    for path in ("/compare", "/api/v1/compare/curves", "/api/v1/compare/layers"):
        assert site.get(f"{path}?{query}").status_code == status


def test_twenty_runs_look_different():
    assert len({tuple(style(index).values()) for index in range(20)}) == 20


def test_a_difference_counts_from_its_first_lasting_sample():
    steps = np.arange(0, 200, 10)
    ratio = np.random.default_rng(1).normal(0, 0.02, (3, 20))
    ratio[1, 4] = 2.0  # one odd sample
    ratio[2, 12:] = 0.9
    found = parting(ratio, np.zeros((3, 20), bool), steps)
    assert (found.step, found.rows) == (120, [2])


def test_jitter_is_no_difference_however_large():
    ratio = np.random.default_rng(2).normal(0, 0.4, (4, 60))
    assert parting(ratio, np.zeros((4, 60), bool), np.arange(60)) is None


def test_a_nan_in_one_run_is_a_difference():
    broken = np.zeros((2, 10), bool)
    broken[1, 6:] = True
    found = parting(np.zeros((2, 10)), broken, np.arange(10))
    assert (found.step, found.rows) == (6, [1])
