"""Figures: what is drawn is what was recorded."""

import base64

import numpy as np
import pytest

from trainvitals.app.figures import bands
from trainvitals.app.figures.base import array, linear_axis, tick
from trainvitals.app.figures.cells import Cells, gather
from trainvitals.app.figures.distribution import histogram
from trainvitals.app.figures.layer import activation, lines
from trainvitals.app.figures.series import loss, small, smooth
from trainvitals.app.figures.sparkline import spark
from trainvitals.app.figures.text import evidence, hover, label, number, opening, seconds, shorten
from trainvitals.app.figures.vitals import worst
from trainvitals.hooks.wire.bins import BINS, bin_of
from trainvitals.hooks.wire.records import Start, Step


def unpack(value):
    if isinstance(value, list):
        return np.array(value, float)
    flat = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype("<" + value["dtype"]))
    return flat.reshape([int(n) for n in value["shape"].split(",")]) if "shape" in value else flat


def cells(mean, *, low=None, high=None):
    mean = np.asarray(mean, float)
    steps = np.arange(mean.shape[1])
    zero = np.zeros(mean.shape, int)
    return Cells(steps, mean if low is None else low, mean if high is None else high, mean, zero)


class Line:
    def __init__(self, values, nonfinite=0):
        values = np.asarray(values, float)
        self.steps = np.arange(len(values))
        self.min = self.max = self.mean = self.last = values
        self.nonfinite = np.broadcast_to(nonfinite, len(values))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.2e-5, "1.2e-5"),
        (1e-6, "1e-6"),
        (0.12345, "0.123"),
        (85.3123, "85.3"),
        (1234567, "1,234,567"),
        (12345.6, "12,346"),
        (float("nan"), "NaN"),
        (float("-inf"), "−Inf"),
        (None, "–"),
    ],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert number(value) == shown


def test_evidence_reads_as_text():
    assert evidence({"ratio": "nan", "layers": ["a", "b"]}) == "ratio NaN, layers a, b"


def test_labels_can_t_carry_markup():
    assert label("<b>x</b>&", 40) == "&lt;b&gt;x&lt;/b&gt;&amp;"
    assert "%{" not in hover("%{y}")
    assert label("\u202eevil") == " evil"
    assert len(shorten("x" * 500, 24)) == 24


def test_a_sentence_that_is_too_long_ends_after_a_word():
    assert opening("One step changed weights.", 25) == "One step changed weights."
    assert opening("One step changed weights.", 24) == "One step changed…"
    assert opening("x" * 500, 24) == "x" * 23 + "…"
    assert label("") == "(root)"


def test_large_arrays_are_packed_and_keep_their_gaps():
    values = np.linspace(0, 1, 1000)
    values[3], values[4] = np.nan, np.inf
    packed = unpack(array(values))
    assert np.isnan(packed[[3, 4]]).all()
    np.testing.assert_allclose(packed[5:], values[5:], rtol=1e-7)
    assert packed.dtype == np.float32
    assert array(np.array([1.0, np.nan, np.inf])) == [1.0, None, None]


@pytest.mark.parametrize(
    "values",
    [
        1000 + np.linspace(0, 1e-3, 500),
        np.geomspace(1e-300, 1, 500),
        np.geomspace(1, 1e300, 500),
        np.arange(500) + (1 << 40),
    ],
    ids=["a small range far from zero", "very small", "very large", "many steps"],
)
def test_what_half_the_bytes_would_blur_keeps_all(values):
    packed = unpack(array(values))
    assert packed.dtype == np.float64
    np.testing.assert_array_equal(packed, values)


def test_steps_take_half_the_bytes():
    packed = unpack(array(np.arange(500) * 1_000_000))
    assert packed.dtype == np.int32
    np.testing.assert_array_equal(packed, np.arange(500) * 1_000_000)


@pytest.mark.parametrize("ratio", [7e-6, 1e-4, 3.4e-3, 3e-2])
def test_update_ratios_of_healthy_runs_are_in_the_band(ratio):
    assert not bands.update_ratio(cells([[ratio] * 5])).any()


def test_update_ratios_far_off_are_coloured_by_their_distance():
    score = bands.update_ratio(cells([[0.2, 4.0, 1e-9, np.nan], [0.01] * 4]))[0]
    assert 0 < score[0] < score[1] <= bands.FULL
    assert score[2] < 0
    assert np.isnan(score[3])


def test_a_spike_of_one_step_is_seen_in_its_bucket():
    mean, high = [[0.01] * 10], np.full((1, 10), 0.01)
    high[0, 4] = 3.0
    score = bands.update_ratio(cells(mean, high=high))[0]
    assert np.flatnonzero(score).tolist() == [4]


def test_activation_std_is_held_against_its_own_start():
    for scale in (0.02, 1.0, 300.0):
        drift = np.array([[1.0] * 20 + [5.0, 20.0, 0.05, 0.5]]) * scale
        score = bands.activation_std(cells(drift))[0]
        assert not score[:21].any()
        assert score[21] > 0 > score[22]
        assert score[23] == 0


def test_a_layer_that_settles_far_above_its_start_is_healthy():
    steps = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 40, 100, 300, 500])
    values = np.array([[0.1] * 11 + [0.3, 5.0, 6.0, 7.0]])
    grown = Cells(steps, values, values, values, np.zeros(values.shape, int))
    assert not bands.activation_std(grown).any()
    assert not bands.gradient_rms(grown).any()
    assert bands.levels(values, steps).high[0] == 6.0


def test_a_layer_that_diverges_early_is_not_its_own_measure():
    values = np.array([[0.1] * 20 + [1e6] * 80])
    score = bands.activation_std(cells(values))[0]
    assert not score[:20].any()
    assert (score[20:] == bands.FULL).all()


def test_the_output_has_a_wider_band():
    values = np.array([[1.0] * 20 + [60.0], [1.0] * 20 + [60.0]])
    score = bands.activation_std(cells(values), loose=np.array([False, True]))
    assert score[0, -1] > 0 == score[1, -1]


def test_updates_that_end_with_the_schedule_are_healthy_but_not_those_of_one_layer():
    ratios = np.array([[1e-3] * 10 + [1e-6, 1e-9, 0.0], [2e-3] * 10 + [2e-6, 2e-9, 0.0]])
    assert not bands.update_ratio(cells(ratios)).any()
    ratios[0, 5:10] = 1e-10
    score = bands.update_ratio(cells(ratios))
    assert (score[0, 5:10] < 0).all()
    assert not score[1].any()


def test_dead_units_count_from_thirty_per_cent():
    score = bands.dead_units(cells([[0.0, 0.29, 0.31, 1.0, np.nan]]))[0]
    assert score[0] == score[1] == 0
    assert score[2] < 0
    assert score[3] == -bands.FULL
    assert np.isnan(score[4])


def test_gradients_may_all_shrink_but_not_one_layer_alone():
    falling = np.logspace(0, -6, 40)
    together = np.tile(falling, (5, 1))
    assert not bands.gradient_rms(cells(together)).any()
    together[0] *= 1e-5
    score = bands.gradient_rms(cells(together))
    assert (score[0] < 0).all()
    assert not score[1:].any()


def test_the_worst_statistic_wins_a_cell():
    score, which = worst({"a": np.array([[0.0, 1.0]]), "b": np.array([[-2.0, np.nan]])})
    assert score.tolist() == [[-2.0, 1.0]]
    assert which.tolist() == [[1, 0]]


def test_rows_are_gathered_by_their_extremes_on_a_common_grid():
    source = cells([[1.0, 5.0, 2.0, 3.0], [4.0, 1.0, 9.0, 0.0]])
    made = gather(source, np.array([0, 2]), [[0, 1], [1], []])
    assert made.max[:2].tolist() == [[5.0, 9.0], [4.0, 9.0]]
    assert made.min[:2].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert np.isnan(made.max[2]).all()


def test_smoothing_keeps_gaps_and_levels():
    values = np.full(300, 2.0)
    values[100:110] = np.nan
    smoothed = smooth(values)
    assert np.isnan(smoothed[100:110]).all()
    np.testing.assert_allclose(smoothed[np.isfinite(smoothed)], 2.0)


def test_a_loss_over_decades_gets_a_log_axis_and_one_below_zero_does_not():
    wide = loss(Line(np.logspace(1, -2, 50)), {})
    assert wide["layout"]["yaxis"]["type"] == "log"
    negative = loss(Line(np.linspace(10, -3, 50)), {})
    assert "type" not in negative["layout"]["yaxis"]


def test_a_constant_has_a_range_around_its_value():
    axis = small(Line(np.full(50, 0.05)), title="Learning rate", scale="log")["layout"]["yaxis"]
    assert axis["range"] == pytest.approx([0.025, 0.075])
    assert "0.05" in axis["ticktext"]
    assert small(Line(np.zeros(50)))["layout"]["yaxis"]["range"] == [-1, 1]


@pytest.mark.parametrize(
    ("title", "log"), [("train/accuracy", False), ("Learning rate", True), ("tokens", True)]
)
def test_a_share_is_never_on_a_log_axis(title, log):
    values = np.linspace(0.01, 1.0, 50) ** 3 * (1 if title != "tokens" else 1e6)
    axis = small(Line(values), title=title, scale="log")["layout"]["yaxis"]
    assert (axis.get("type") == "log") is log


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.05, "0.05"),
        (-0.5, "−0.5"),
        (1000.0, "1000"),
        (100000.0, "100k"),
        (1e6, "1e6"),
        (1.5e18, "1.5e18"),
        (-2e-5, "−2e-5"),
    ],
)
def test_ticks_are_short(value, shown):
    assert tick(value) == shown


def test_ticks_of_enormous_values_are_round():
    axis = linear_axis(np.array([-1.0, 1.96e18]))
    assert axis["ticktext"] == ["0", "5e17", "1e18", "1.5e18", "2e18"]


def test_an_explosion_does_not_hide_the_healthy_steps():
    mean = np.append(np.full(50, 0.1), 1e18)
    figure = activation({"mean": Line(mean), "std": Line(np.abs(mean)), "absmax": Line(3 * mean)})
    assert figure["layout"]["yaxis"]["range"][1] < 1
    assert lines({"weight": Line(mean)})["layout"]["yaxis"]["type"] == "log"


def test_a_nan_in_the_loss_is_marked():
    flags = np.zeros(50, int)
    flags[30] = 1
    figure = loss(Line(np.ones(50), flags), {})
    marks = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
    assert unpack(marks[0]["x"]).tolist() == [30]


def test_a_histogram_shows_each_bin_s_share():
    counts = np.zeros((3, BINS), np.int64)
    counts[:, int(bin_of(0.01))] = 30
    counts[:, int(bin_of(-1.0))] = 10
    figure = histogram(np.array([0, 10, 20]), counts, what="weights", stop=60)
    assert figure["data"][0]["x"] == [0, 10, 20, 60]
    shares = 10 ** unpack(figure["data"][0]["z"])
    assert sorted(np.unique(shares[np.isfinite(shares)]).round(6)) == [0.25, 0.75]
    bins = figure["layout"]["meta"]["bins"]
    assert bins[0] < 0 < bins[-1]
    assert len(bins) == len(shares)


def test_a_sparkline_breaks_at_nan_and_keeps_its_band():
    drawn = spark([1, 2, "nan", 3], band=[1, 2])
    assert drawn.path.count("M") == 2
    assert len(drawn.broken) == 1
    assert drawn.band[1] > 0
    assert spark([None, 1.0]) is None


@pytest.fixture(scope="module")
def site(open_app, tmp_path_factory, fill, made_run):
    path = tmp_path_factory.mktemp("site") / "trainvitals.db"
    fill(
        path,
        made_run("healthy", steps=300).end(),
        made_run("sick", steps=400, sick=True).end("failed"),
        made_run("empty", steps=0),
    )
    return open_app(path).test_client()


def test_the_map_of_a_healthy_run_is_pale(site):
    figure = site.get("/api/v1/runs/healthy/figures/vitals").json
    score = unpack(figure["data"][0]["z"])
    assert np.isfinite(score).mean() > 0.95
    assert not np.nan_to_num(score).any()
    assert len(figure["data"]) == 1
    assert "all within" in figure["layout"]["meta"]["summary"]


def test_the_map_of_a_sick_run_shows_where_and_when(site):
    figure = site.get("/api/v1/runs/sick/figures/vitals").json
    score, broken = (unpack(trace["z"]) for trace in figure["data"])
    steps = np.array(figure["layout"]["meta"]["steps"])
    names = [row["name"] for row in figure["layout"]["meta"]["rows"]]
    ill = {names[i] for i in np.flatnonzero((np.nan_to_num(score) != 0).any(axis=1))}
    assert "block2.conv1" in ill
    assert "stem.conv" not in ill
    assert steps[np.flatnonzero((np.nan_to_num(score) != 0).any(axis=0))[0]] >= 240
    assert steps[np.flatnonzero((broken == 1).any(axis=0))[0]] >= 350
    assert "first in block2.conv1" in figure["layout"]["meta"]["summary"]


@pytest.mark.parametrize(
    "tab", ["update_ratio", "std", "dead_fraction", "grad_rms", "zero_fraction"]
)
def test_every_tab_of_the_map_has_a_figure(site, tab):
    figure = site.get(f"/api/v1/runs/sick/figures/vitals?statistic={tab}").json
    assert figure["data"]
    assert site.get("/api/v1/runs/sick/figures/vitals?statistic=nope").status_code == 400


def test_a_run_without_records_has_figures_that_say_so(site):
    for name in ("loss", "vitals"):
        figure = site.get(f"/api/v1/runs/empty/figures/{name}").json
        assert figure["data"] == []
        assert figure["layout"]["meta"]["summary"]
    assert site.get("/api/v1/runs/empty/figures/metrics").json == {"figures": []}


def test_the_loss_figure_holds_the_logged_loss(site, made_run):
    logged = [r.scalars["loss"] for r in made_run("x", steps=300).records if hasattr(r, "scalars")]
    figure = site.get("/api/v1/runs/healthy/figures/loss").json
    raw = unpack(figure["data"][0]["y"])
    np.testing.assert_allclose(raw, logged)


def test_a_range_of_steps_narrows_every_figure(site):
    for name in ("loss", "vitals"):
        layout = site.get(f"/api/v1/runs/healthy/figures/{name}?start=100&stop=200").json["layout"]
        assert layout["xaxis"]["range"] == [100, 200]


def test_a_picked_range_is_judged_as_in_the_picture_of_all_steps(site):
    whole = site.get("/api/v1/runs/sick/figures/vitals?statistic=std").json
    part = site.get("/api/v1/runs/sick/figures/vitals?statistic=std&start=300&stop=340").json
    steps = [figure["layout"]["meta"]["steps"] for figure in (whole, part)]
    scores = [unpack(figure["data"][0]["z"]) for figure in (whole, part)]
    same = np.isin(steps[0], steps[1])
    assert same.sum() > 10
    assert np.nan_to_num(scores[1]).any()
    np.testing.assert_allclose(scores[0][:, same], scores[1], rtol=0.05, atol=0.01)


def test_a_layer_has_its_small_multiples_and_histograms(site):
    answer = site.get("/api/v1/runs/sick/figures/layer?name=block2.conv1").json
    keys = [figure["key"] for figure in answer["figures"]]
    assert keys == ["update_ratio", "activation", "std", "shares", "grad_rms", "weight_rms"]
    relu = site.get("/api/v1/runs/sick/figures/layer?name=block1.relu1").json["figures"]
    assert [figure["key"] for figure in relu] == ["activation", "std", "shares"]
    assert all(figure["data"] for figure in relu)
    for kind in ("weight", "gradient", "activation"):
        address = f"/api/v1/runs/sick/figures/histogram?name=block2.conv1&kind={kind}"
        assert site.get(address).json["data"][0]["type"] == "heatmap"
    assert site.get("/api/v1/runs/sick/figures/layer?name=none").status_code == 404


def test_metrics_show_every_scalar_once(site):
    figures = site.get("/api/v1/runs/healthy/figures/metrics").json["figures"]
    keys = [figure["key"] for figure in figures]
    assert keys[:5] == ["tv/lr", "tv/grad_norm", "tv/step_time", "tv/data_wait", "tv/overhead"]
    assert "val/accuracy" in keys
    assert len(keys) == len(set(keys))


def test_metrics_of_the_system_come_last_as_a_group_with_titles(client, send):
    scalars = {
        "tv/system/gpu_memory/1": 2.0,
        "tv/system/memory": 0.5,
        "tv/system/data_wait": 0.25,
        "tv/system/unheard_of": 1.0,
        "accuracy": 0.5,
    }
    start = Start(seq=0, time=1e9, project="digits", name="a name")
    steps = [Step(seq=1 + n, time=1e9 + n, step=n, scalars=scalars) for n in range(3)]
    assert send(records=[start, *steps]).status_code == 200
    figures = client.get("/api/v1/runs/run-1/figures/metrics").json["figures"]
    assert [(figure["title"], figure.get("group")) for figure in figures] == [
        ("accuracy", None),
        ("Waiting for data", "system"),
        ("Memory of the process", "system"),
        ("GPU memory in tensors 1", "system"),
        ("tv/system/unheard_of", "system"),
    ]
    waiting = figures[1]
    assert waiting["layout"]["yaxis"]["tickformat"] == ".0%"
    assert (figures[2]["hint"], figures[2]["layout"]["yaxis"]["rangemode"]) == ("GiB", "tozero")
    assert unpack(waiting["data"][1]["y"]).tolist() == [0.25, 0.25, 0.25]


def test_a_single_value_is_a_dot():
    assert [trace.get("mode") for trace in small(Line([3.0]))["data"]][-1] == "markers"
    assert [trace.get("mode") for trace in small(Line([3.0, 4.0]))["data"]][-1] == "lines"


@pytest.mark.parametrize("sum_up", [np.nanmax, np.nanmedian])
def test_a_column_without_a_value_is_nan_and_gives_no_warning(sum_up):
    values = np.array([[1.0, np.nan, 7.0], [np.nan, np.nan, 3.0], [5.0, np.nan, 2.0]])
    middle = {np.nanmax: [5.0, np.nan, 7.0], np.nanmedian: [3.0, np.nan, 3.0]}[sum_up]
    np.testing.assert_array_equal(bands.along(sum_up, values, 0), middle)
    assert np.isnan(bands.along(sum_up, np.zeros((0, 2)), 0)).all()


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0 s"), (2.5e-5, "25 µs"), (0.04, "40 ms"), (0.0025, "2.5 ms"), (1.5, "1.5 s")],
)
def test_seconds_are_told_in_the_unit_that_suits_them(value, said):
    assert seconds(value) == said
