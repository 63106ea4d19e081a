"""What pages get when a run goes on, and the map they draw: codes, blocks, the tree."""

import numpy as np
import pytest

from trainvitals.app.figures import judged
from trainvitals.app.figures.blocks import block_of, ordered
from trainvitals.app.figures.cells import Cells, Line
from trainvitals.app.figures.distribution import places, quantiles, ridgeline
from trainvitals.app.web import deltas, frames
from trainvitals.hooks.wire.bins import BINS, bin_of


def figure(y, **layout):
    x = list(range(len(y)))
    return {"data": [{"type": "scatter", "x": x, "y": list(y), "name": "loss"}], "layout": layout}


def test_the_same_figure_is_no_news():
    assert (
        deltas.Tracked(figure([1.0, 2.0])).since(deltas.Tracked(figure([1.0, 2.0])).token) is None
    )


def test_points_that_were_added_come_alone_with_the_last_that_was_there():
    news = deltas.Tracked(figure([1.0, 2.0, 2.5, 3.0])).since(
        deltas.Tracked(figure([1.0, 2.0, 2.0])).token
    )
    assert news["traces"] == [{"at": 2, "x": [2.0, 3.0], "y": [2.5, 3.0]}]
    assert "layout" not in news


def test_a_change_of_earlier_points_brings_the_whole_curve():
    news = deltas.Tracked(figure([1.0, 9.0, 2.0, 3.0])).since(
        deltas.Tracked(figure([1.0, 2.0, 2.0])).token
    )
    assert news["traces"][0]["y"] == [1.0, 9.0, 2.0, 3.0]


def test_a_new_layout_comes_with_curves_that_stay():
    news = deltas.Tracked(figure([1.0], title="b")).since(
        deltas.Tracked(figure([1.0], title="a")).token
    )
    assert news["traces"] == [None]
    assert news["layout"] == {"title": "b"}


@pytest.mark.parametrize("token", ["", "nonsense", "9.a.b.c_x", "1.1.1.1_1_1_1", "²._"])
def test_a_token_that_means_nothing_brings_the_figure(token):
    news = deltas.Tracked(figure([1.0, 2.0])).since(token)
    assert news["traces"][0]["y"] == [1.0, 2.0]


def cells(mean, nonfinite=None):
    mean = np.asarray(mean, float)
    none = np.zeros(mean.shape, int) if nonfinite is None else np.asarray(nonfinite)
    return Cells(np.arange(mean.shape[1]), mean, mean, mean, none)


def test_a_cell_shows_its_worst_statistic_and_nan_above_all():
    lines = [Line("a", weights=["a.weight"], parameters=["a.weight"]), Line("b")]
    ratio = cells([[1e-3, 5.0, 1e-3, np.nan], [np.nan] * 4])
    std = cells([[1.0] * 4, [1.0] * 4], [[0] * 4, [0, 0, 0, 2]])
    grad = cells([[1e-3] * 4, [np.nan] * 4], [[0, 0, 1, 0], [0] * 4])
    made = judged.picture(
        lines,
        {"update_ratio": ratio, "std": std},
        {"std": std, "grad_rms": grad},
        stop=4,
        levels={},
        loose=np.zeros(2, bool),
    )
    assert made.codes[0, 0] == 0
    assert made.codes[0, 1] >= judged.FULL * 0.26
    assert made.codes[0, 2] == judged.GRADIENT_NONFINITE
    assert made.codes[1].tolist() == [0, 0, 0, judged.NONFINITE]
    assert "NaN or infinity in 2 layers, first in a at step 2" in made.summary


def test_a_layer_without_gradient_beside_one_that_has_one_is_frozen():
    lines = [
        Line("a", weights=["a.w"], parameters=["a.w"]),
        Line("b", weights=["b.w"], parameters=["b.w"]),
    ]
    ratio = cells([[np.nan, 1e-3], [1e-3, 1e-3]])
    quiet = cells([[1.0, 1.0], [1.0, 1.0]])
    made = judged.picture(
        lines,
        {"update_ratio": ratio},
        {"std": quiet, "grad_rms": quiet},
        stop=2,
        levels={},
        loose=np.zeros(2, bool),
    )
    assert made.codes.tolist() == [[judged.FROZEN, 0], [0, 0]]
    assert not judged.ill(made.codes).any()


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("blocks.3.attn.qkv", "blocks.3"),
        ("stage2.0.conv1", "stage2.0"),
        ("stem.conv", "stem"),
        ("fc1", "fc1"),
        ("0", "0"),
        ("", ""),
    ],
)
def test_a_layer_s_block_is_its_name_up_to_the_first_number(name, block):
    assert block_of(name) == block


def test_members_of_a_block_come_together():
    assert ordered(["a.0.x", "b.x", "a.0.y"]) == [0, 2, 1]


def test_a_live_answer_holds_only_what_is_new(client, send, clock):
    assert send(count=12).status_code == 200
    first = client.get("/api/v1/runs/run-1/live?charts=run&map=").json
    known = f"known=loss~{first['charts']['loss']['token']}&map={first['map']['token']}"
    assert send(first=12, count=3).status_code == 200
    clock.now += frames.FRAME_S
    address = f"/api/v1/runs/run-1/live?version={first['version']}&charts=run&{known}"
    news = client.get(address).json
    grown = [trace for trace in news["charts"]["loss"]["traces"] if trace and "at" in trace]
    assert grown
    assert all(len(trace["x"]) == 4 for trace in grown)  # the last that was there, and three
    assert "rows" not in news["map"]
    assert news["map"]["first"] == 9
    same = client.get(
        address.replace(f"version={first['version']}", f"version={news['version']}")
    ).json
    assert "charts" not in same


@pytest.fixture
def counts():
    made = np.zeros((3, BINS), np.int64)
    for row, value in enumerate((0.01, 0.1, 1.0)):
        made[row, int(bin_of(value))] = 100
    return made


def test_quantiles_lie_in_the_bin_that_holds_the_values(counts):
    assert places(counts, 0.5).tolist() == [float(int(bin_of(v))) for v in (0.01, 0.1, 1.0)]
    figure = quantiles(np.array([0, 10, 20]), counts, what="weights")
    assert "Half of the weights" in figure["layout"]["meta"]["summary"]
    assert quantiles(np.zeros(0, int), np.zeros((0, BINS), int), what="weights")["data"] == []


def test_a_ridgeline_has_the_earliest_histogram_on_top(counts):
    figure = ridgeline(np.array([0, 10, 20]), counts, what="weights")
    bases = [trace["y"][0] for trace in figure["data"][::2]]
    assert bases == [2.0, 1.0, 0.0]
    assert figure["layout"]["meta"]["over"] == "values"


def test_the_unit_of_the_axis_says_what_to_log_where_it_is_unknown(client, send):
    assert send(count=12).status_code == 200
    answer = client.get("/api/v1/runs/run-1/axis?unit=epoch").json
    assert answer["steps"] == []
    assert "tv.log" in answer["needed"]
    assert client.get("/api/v1/runs/run-1/axis?unit=parsec").status_code == 400
