"""The harness that measures overhead: its arithmetic, its pairing, and a run of it on a toy. No timings."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest
import torch
from torch import nn

from benchmarks.overhead import __main__ as command
from benchmarks.overhead import compare as comparing
from benchmarks.overhead import measure, report
from benchmarks.overhead.compare import WARM, Job, Outcome, Shape, compare, isolated
from benchmarks.overhead.counting import Growth, attached, operations
from benchmarks.overhead.estimates import Figure, estimate, over_all, quotient
from benchmarks.overhead.loops import Pairs, interleave, joined, quartiles, steps_for
from benchmarks.overhead.models import MODELS, build
from benchmarks.overhead.peers import TOOLS, Tool
from benchmarks.overhead.plain import PlainCollector
from benchmarks.overhead.processes import measured, together

ROOT = Path(__file__).parent.parent.parent
STARTER = """
import signal, subprocess, sys
from benchmarks.overhead import compare

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

compare.PATIENCE_S = 1
compare.isolated(subprocess.run, ["sh", "-c", "touch $0; exec sleep 100", sys.argv[1]])
"""


def outcome(tool: str, plain: list[float], watched: list[float]) -> Outcome:
    pairs = Pairs(plain, watched, 10)
    same = Pairs([1.0], [1.0], 1)
    job = Job("toy", tool, steps=1, seconds=0, pairs=1)
    shape = Shape(10, len(plain))
    return Outcome(job, shape, same, pairs, pairs, 0.5, 0.1, 0.2, 0.3, 1 << 20, 0, 0, 3, 0.1)


def steady(tool: str, added: float) -> Outcome:
    """One that scatters by a hundredth of what is added."""
    scatter = [added * (1 + 0.01 * (n % 5 - 2)) for n in range(40)]
    return outcome(tool, [2.0] * 40, [2.0 + one for one in scatter])


def test_what_is_added_is_told_by_pair_and_in_total():
    pairs = Pairs([1.0, 2.0, 1.0], [1.1, 2.0, 1.5], steps=5)
    assert pairs.added == pytest.approx([0.1, 0.0, 0.5])
    assert pairs.differences == pytest.approx([0.1, 0.0, 0.5])
    assert pairs.total_added == pytest.approx(4.6 / 4.0 - 1)
    assert pairs.share == pytest.approx(0.6 / 4.6)
    assert pairs.total_steps == 15


def test_merged_pairs_hold_what_is_rare_in_each():
    every_fourth = [2.0 if n % 4 == 3 else 1.0 for n in range(18)]
    merged = Pairs([1.0] * 18, every_fourth, steps=5).merged(4)
    assert merged.added == pytest.approx([0.25] * 4)  # the last two blocks fill no pair
    assert merged.steps == 20
    assert Pairs([1.0], [1.5], steps=5).merged(4).added == [0.5]


def test_quartiles_lie_between_neighbours():
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 2.5, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_blocks_alternate_and_only_plain_ones_run_while_the_tool_is_paused():
    seen: list[str] = []
    told: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def paused():
        seen.append("(")
        yield
        seen.append(")")

    wall, cpu = interleave(
        lambda: seen.append("a"),
        lambda: seen.append("b"),
        steps=2,
        pairs=3,
        paused=paused,
        tell=lambda done, of: told.append((done, of)),
    )
    assert "".join(seen) == "(aa)bb" + "bb(aa)" + "(aa)bb"
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(wall) == len(cpu) == 3
    assert wall.steps == 2


def test_the_steps_before_a_block_do_not_count():
    clock = [0.0]

    def step(seconds: float) -> None:
        clock[0] += seconds

    with patch("time.perf_counter", lambda: clock[0]):
        wall, _ = interleave(
            functools.partial(step, 1.0),
            functools.partial(step, 3.0),
            steps=2,
            pairs=2,
            paused=contextlib.nullcontext,
            tell=lambda done, of: None,
            settle=4,
        )
    assert (wall.plain, wall.watched, wall.steps) == ([1.0, 1.0], [3.0, 3.0], 2)
    assert clock[0] == 2 * (2 + 4) * (1.0 + 3.0)


def test_a_block_has_a_step_at_least():
    assert steps_for(lambda: None, 0.0) == 1
    assert steps_for(lambda: None, 1e-3) > 1


@pytest.mark.parametrize(("block", "steps"), [(0.0, 10), (1e-2, 0)])
def test_a_block_is_a_multiple_of_the_sampling_interval(block, steps):
    found = compare(Job("toy", "nothing", steps=1, seconds=0, pairs=1, block=block, multiple=10))
    assert found.wall.steps % 10 == 0
    assert found.wall.steps == (steps or found.wall.steps)
    assert found.control.steps <= found.wall.steps


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet18"])
def test_twins_do_bit_identical_work(name):
    one, other = build(name), build(name)
    losses = [[training.step().item() for _ in range(2)] for training in (one, other)]
    assert losses[0] == losses[1]
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
    )


def test_a_tool_is_compared_on_a_toy():
    found = compare(Job("toy", "ours", steps=25, seconds=0, pairs=3, block=0.0, multiple=10))
    assert found.wall.steps == 10
    assert len(found.wall) == 3
    assert len(found.control) == 8 and found.control.steps == 1
    assert found.samples == 3  # steps 0, 10 and 20 of the 30 watched ones
    assert found.reported is not None
    assert found.disk > 0
    assert not attached(nn.Linear(1, 1))


def test_for_each_part_the_twins_are_made_anew_and_go_on_alike(monkeypatch):
    watched = []

    class Noting(Tool):
        def start(self, training, folder):
            watched.append(training)

        def move(self, training):
            watched.append(training)

    monkeypatch.setitem(TOOLS, "noting", Noting)
    found = compare(Job("toy", "noting", steps=60, seconds=0, pairs=2, block=0.0, parts=3))
    assert len({id(training.model) for training in watched}) == 3
    assert (len(found.wall), found.wall.total_steps) == (60, 60)
    alone = build("toy")
    for _ in range(3 + 5 + 8 + 20 + 2 * (WARM + 20)):  # warm, timed, control; then the parts
        alone.step()
    for one, other in zip(watched[-1].model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("tool", ["default", "non-finite"])
def test_a_run_goes_on_with_each_twin(tool):
    found = compare(Job("toy", tool, steps=60, seconds=0, pairs=3, block=0.0, parts=3))
    assert found.wall.total_steps == 60
    assert found.samples is not None
    assert found.reported is not None
    assert not attached(nn.Linear(1, 1))


def test_what_parts_differ_by_is_in_the_error():
    draw = random.Random(2)
    parts = []
    for _ in range(12):
        placed = draw.gauss(0, 0.01)  # how much quicker one of the twins is for a whole part
        blocks = [1.05 + placed + draw.gauss(0, 0.001) for _ in range(50)]
        parts.append(Pairs([1.0] * 50, blocks, 4))
    pairs = joined(parts)
    assert (len(pairs), pairs.total_steps) == (600, 2400)
    means = [statistics.fmean(part.added) for part in parts]
    error = estimate(over_all, pairs.merged(12)).error
    assert error == pytest.approx(statistics.stdev(means) / math.sqrt(12), rel=0.1)


def test_several_processes_become_one_outcome_with_blocks_of_the_same_shape():
    asked = []

    def compared(job: Job) -> Outcome:
        asked.append(job.shape)
        times = [1.0 + 0.1 * len(asked)] * 3
        found = outcome("ours", [1.0] * 3, times)
        return dataclasses.replace(found, job=job, start=float(len(asked)))

    found = measured(Job("toy", "ours", steps=1, seconds=0, pairs=3, processes=3), compared)
    assert asked == [None, Shape(10, 3), Shape(10, 3)]
    assert [round(pairs.total_added, 9) for pairs in found.wall.cut(3)] == [0.1, 0.2, 0.3]
    assert len(found.control) == 3 and found.wall.total_steps == 90
    assert (found.start, found.samples, found.reported) == (2.0, 9, pytest.approx(0.1))


def test_what_is_not_told_by_any_process_is_not_told():
    one = dataclasses.replace(outcome("plain", [1.0], [1.0]), samples=None, reported=None)
    both = together([one, one])
    assert both.samples is None and both.reported is None


def test_what_processes_differ_by_is_the_error_of_a_ratio():
    def of_processes(tool: str, added: list[float]) -> Outcome:
        watched = [2.0 + one for one in added for _ in range(10)]
        found = outcome(tool, [2.0] * len(watched), watched)
        return dataclasses.replace(found, job=dataclasses.replace(found.job, processes=len(added)))

    ours = of_processes("ours", [0.2, 0.9, 0.3, 0.3, 0.4])  # one was disturbed
    plain = of_processes("plain", [1.0] * 5)
    share = report.ratio(ours, plain)
    assert share.value == pytest.approx(0.3)
    assert 0.02 < share.error < 0.3
    assert report.ratio(of_processes("ours", [0.3] * 5), plain) == pytest.approx((0.3, 0.0))


def test_only_models_of_short_steps_are_shared_out_between_processes():
    jobs = [
        job
        for name in ("default_jobs", "alone_jobs")
        for job in getattr(measure, name)(MODELS, measure.FULL)
    ]
    for job in jobs:
        whole = (1, measure.FULL.parts) if job.model != "mlp" else (measure.FULL.processes, 1)
        assert (job.processes, job.parts) == whole
    shared = [job for job in jobs if job.tool == "default" and job.model == "mlp"]
    assert [job.seconds * job.processes for job in shared] == [measure.FULL.default_seconds]
    assert shared[0].steps == measure.FULL.default_steps


def test_to_repeat_takes_as_many_times_the_processes_and_leaves_each_as_it_is():
    three = dataclasses.replace(measure.FULL, repeats=3)
    for name in ("default_jobs", "alone_jobs"):
        once, thrice = (list(getattr(measure, name)(MODELS, it)) for it in (measure.FULL, three))
        assert [job.processes for job in thrice] == [3 * job.processes for job in once]
        assert [dataclasses.replace(job, processes=1) for job in thrice] == [
            dataclasses.replace(job, processes=1) for job in once
        ]


def test_a_wrong_number_of_times_is_told(capsys):
    with pytest.raises(SystemExit):
        command.main(["--repeat", "0"])
    assert "expected a whole number from 1 on, got '0'" in capsys.readouterr().err


def test_a_plain_collector_writes_the_same_statistics(tmp_path):
    training = build("toy")
    collector = PlainCollector(training.model, training.optimizer, tmp_path / "s.jsonl", 2)
    before = training.model[0].weight.detach().clone()
    losses = []
    for _ in range(3):
        losses.append(training.step())
        if len(losses) == 1:
            after, gradient = (
                training.model[0].weight.detach().clone(),
                training.model[0].weight.grad.clone(),
            )
        collector.log(losses[-1])
    collector.close()
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx([loss.item() for loss in losses])
    assert [len(line) > 2 for line in lines] == [True, False, True]
    weight = lines[0]["weight/0.weight"]
    assert weight["std"] == pytest.approx(before.numpy().std(), rel=1e-5)
    ratio = (after - before).norm() / before.norm()
    assert weight["update_ratio"] == pytest.approx(ratio.item(), rel=1e-4)
    assert lines[0]["gradient/0.weight"]["absmax"] == pytest.approx(gradient.abs().max().item())
    assert sum(weight["histogram"]) == before.numel()
    assert 0 <= lines[0]["activation/1"]["dead_fraction"] <= 1
    assert attached(training.model) == []


def test_hooks_are_found_wherever_they_hang():
    model = nn.Sequential(nn.Linear(2, 2))
    assert attached(model) == []
    on_module = model[0].register_forward_pre_hook(lambda module, args: None)
    everywhere = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    assert attached(model) == [
        "1 in torch.nn.modules.module._global_backward_hooks",
        "1 forward_pre hooks on '0'",
    ]
    on_module.remove()
    everywhere.remove()


def test_operations_are_counted_by_kind_of_step():
    found = operations("toy")
    assert found.checked == len(found.idle) == 18  # of steps 11 to 30 all but 20 and 30
    assert len(found.sampled) == 3
    assert min(c.operations for c in found.idle) >= 0


def test_a_ratio_is_that_of_added_times():
    ours = outcome("ours", [1.0, 1.0, 1.0], [1.1, 1.2, 1.3])
    theirs = outcome("plain", [2.0, 2.0, 2.0], [2.8, 2.9, 2.6])
    assert report.ratio(ours, theirs).value == pytest.approx(0.2 / 0.8)
    assert quotient(Figure(0.2, 0.03), Figure(0.8, 0.1)) == pytest.approx(
        (0.25, 0.25 * math.hypot(0.03 / 0.2, 0.1 / 0.8))
    )
    rows = report.full_table([steady("ours", 0.2), steady("plain", 0.8)])
    assert rows[2][-3:] == ["0.25 ± 0.00", "0.33", "yes"]
    rows = report.full_table([steady("ours", 0.2), steady("plain", 0.4)])
    assert rows[2][-3:] == ["0.50 ± 0.00", "0.33", "NO"]
    rows = report.full_table([steady("ours", 0.2), steady("plain", 0.602)])
    assert rows[2][-1] == "unclear"  # 0.332


def test_nothing_is_said_of_a_ratio_to_what_may_be_nothing():
    assert quotient(Figure(0.1, 0.01), Figure(0.2, 0.1)).error == math.inf
    assert quotient(Figure(0.1, 0.01), Figure(-0.2, 0.01)).holds(0.3) == "unclear"


def test_the_error_of_a_figure_is_what_it_scatters_by():
    draw = random.Random(5)
    figures, errors = [], []
    for _ in range(200):
        pairs = Pairs([1.0] * 50, [1.01 + draw.gauss(0, 0.02) for _ in range(50)], steps=1)
        found = estimate(over_all, pairs)
        figures.append(found.value)
        errors.append(found.error)
    assert statistics.stdev(figures) == pytest.approx(0.02 / math.sqrt(50), rel=0.15)
    assert statistics.fmean(errors) == pytest.approx(0.02 / math.sqrt(50), rel=0.05)
    assert estimate(over_all, Pairs([1.0], [1.1], 1)).error == math.inf


def test_a_limit_holds_where_two_errors_leave_no_doubt():
    assert Figure(0.010, 0.002).holds(0.015) == "yes"
    assert Figure(0.012, 0.002).holds(0.015) == "unclear"
    assert Figure(0.018, 0.002).holds(0.015) == "unclear"
    assert Figure(0.020, 0.002).holds(0.015) == "NO"
    assert Figure(0.0, math.inf).holds(0.015) == "unclear"


def test_samples_in_each_large_pair_are_no_error():
    """One step in twenty is a sample: single blocks differ by it, large pairs do not."""
    watched = [1.2 if n % 20 == 7 else 1.0 for n in range(240)]
    found = dataclasses.replace(
        steady("default", 0.0), wall=Pairs([1.0] * 240, watched, 1), reported=0.0099
    )
    row = report.default_table([found])[1]
    assert row[3] == "+1.00% ± 0.00%"
    assert row[5] == "+1.00% ± 0.00% [+1.00%, +1.00%]"
    assert row[-2:] == ["yes", "yes"]


def test_what_noise_exceeds_is_called_unclear():
    restless = outcome("ours", [1.0, 1.0, 1.0], [0.7, 1.0, 1.6])
    theirs = outcome("plain", [2.0, 2.0, 2.0], [2.8, 2.9, 2.6])
    assert report.full_table([restless, theirs])[2][-1] == "unclear"
    quiet = outcome("default", [1.0] * 8, [1.01] * 8)
    unlike = dataclasses.replace(quiet, control=Pairs([1.0] * 8, [1.1] * 8, 1))
    scattered = dataclasses.replace(quiet, control=Pairs([1.0] * 4, [0.7, 1.3, 0.8, 1.3], 1))
    noisy = dataclasses.replace(quiet, wall=Pairs([1.0] * 8, [0.95, 1.07] * 4, 10))
    rows = report.default_table([quiet, unlike, scattered, noisy])[1:]
    assert [row[-2] for row in rows] == ["yes", "unclear", "yes", "unclear"]
    assert [row[3].split()[0] for row in rows] == ["+1.00%"] * 4


def test_a_reported_share_agrees_within_a_third():
    assert report.agree(0.008, Figure(0.011, 0)) == "yes"
    assert report.agree(0.007, Figure(0.011, 0)) == "NO"
    assert report.agree(0.015, Figure(0.011, 0)) == "NO"
    assert report.agree(0.008, Figure(0.011, 0.002)) == "unclear"
    assert report.agree(0.007, Figure(0.011, 0.001)) == "unclear"
    assert report.agree(0.011, Figure(0.011, 0.001)) == "yes"


def test_the_report_names_every_line_and_what_was_skipped():
    found = measure.Measured(
        default=[outcome("default", [1.0] * 8, [1.01] * 8)],
        full=[outcome("ours", [1.0] * 8, [1.1] * 8)],
        alone=[outcome("non-finite", [1.0] * 8, [1.02] * 8)],
        operations={"toy": operations("toy")},
        growth=Growth(100, 0, 1 << 20),
        device={"toy": "no CUDA device here"},
        skipped=["wandb: wandb is not installed"],
    )
    text = report.text(found)
    one, two = ("  ".join([f"+{n}.00% ± 0.00%"] * 3) + f" [+{n}.00%, +{n}.00%]" for n in (1, 2))
    assert one in text and two in text
    assert "100.00 ms" not in text.split("2. Full")[0]
    assert "1000.00 ms" in text.split("2. Full")[1]  # 0.1 s a step at an interval of 10
    assert "skipped: wandb" in text
    written = json.loads(report.as_json(found))
    assert written["default"][0]["wall"]["plain"] == [1.0] * 8
    (figures,) = written["figures"]["alone"]
    assert figures["median"] == pytest.approx({"value": 0.02, "error": 0.0})
    assert figures["twins"]["error"] is None  # of a single pair


@pytest.mark.slow
def test_what_fails_in_a_process_of_its_own_is_raised():
    with pytest.raises(RuntimeError, match="invalid literal"):
        isolated(int, "many")
    assert isolated(comparing.Pairs, [1.0], [2.0], 1).added == [1.0]


@pytest.mark.slow
def test_copies_of_the_twins_are_no_memory_of_the_tool(monkeypatch):
    large = comparing.Places.elsewhere

    def elsewhere(self, training):
        self._kept.append(torch.ones(1 << 26))
        return large(self, training)

    monkeypatch.setattr(comparing.Places, "elsewhere", elsewhere)
    monkeypatch.setattr(Tool, "move", lambda self, training: None)
    found = compare(Job("toy", "nothing", steps=4, seconds=0, pairs=2, block=0.0, parts=2))
    assert found.memory < 1 << 27  # a copy took twice as much


@pytest.mark.slow
def test_the_heap_of_a_process_of_its_own_only_grows():
    assert {name: isolated(os.getenv, name) for name in comparing.HEAP} == comparing.HEAP


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_process_of_its_own_ends_with_the_one_that_started_it(how, tmp_path):
    begun = tmp_path / "begun"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(begun)], stderr=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        for _ in range(1200):
            if begun.exists():
                break
            time.sleep(0.05)
        measuring = psutil.Process(starter.pid).children(recursive=True)
        assert begun.exists() and measuring
        starter.send_signal(how)
        starter.wait(30)
        _, alive = psutil.wait_procs(measuring, timeout=30)
        assert alive == []
    finally:
        starter.kill()
        starter.wait(30)
