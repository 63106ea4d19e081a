"""The harness that measures overhead: its arithmetic, its pairing, and a run of it on a toy. No timings."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from benchmarks.overhead import compare as comparing
from benchmarks.overhead import measure, report
from benchmarks.overhead.compare import Job, Outcome, compare, isolated
from benchmarks.overhead.counting import Growth, attached, operations
from benchmarks.overhead.loops import Pairs, interleave, quartiles, steps_for
from benchmarks.overhead.models import MODELS, build
from benchmarks.overhead.plain import PlainCollector

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
    return Outcome(job, same, pairs, pairs, 0.5, 0.1, 0.2, 0.3, 1 << 20, 0, 0, 3, 0.1)


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


def test_a_block_is_a_multiple_of_the_sampling_interval():
    assert steps_for(lambda: None, 0.0, multiple=10) == 10
    assert steps_for(lambda: None, 0.0) == 4
    assert steps_for(lambda: None, 1e-3, multiple=10) % 10 == 0


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
    assert found.samples == 3  # steps 0, 10 and 20 of the 30 watched ones
    assert found.reported is not None
    assert found.disk > 0
    assert not attached(nn.Linear(1, 1))


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
    assert report.ratio(ours, theirs) == pytest.approx(0.2 / 0.8)
    rows = report.full_table([ours, theirs])
    assert rows[2][-3:] == ["0.25", "0.33", "yes"]
    slower = outcome("plain", [2.0, 2.0, 2.0], [2.4, 2.4, 2.4])
    assert report.full_table([ours, slower])[2][-3:] == ["0.50", "0.33", "NO"]


def test_what_noise_exceeds_is_called_unclear():
    faster = outcome("ours", [1.0, 1.0, 1.0], [0.9, 0.9, 1.1])
    theirs = outcome("plain", [2.0, 2.0, 2.0], [2.8, 2.9, 2.6])
    assert report.full_table([faster, theirs])[2][-1] == "unclear"
    quiet = outcome("default", [1.0] * 8, [1.01] * 8)
    noisy = dataclasses.replace(quiet, control=Pairs([1.0], [1.1], 1))
    verdicts = [row[-2] for row in report.default_table([quiet, noisy])[1:]]
    assert verdicts == ["yes", "unclear"]


def test_a_reported_share_agrees_within_a_third():
    assert report.agree(0.008, 0.011)
    assert not report.agree(0.007, 0.011)
    assert not report.agree(0.015, 0.011)


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
    assert "+1.00%  +1.00%  +1.00% [+1.00%, +1.00%]" in text
    assert "+2.00%  +2.00%  +2.00% [+2.00%, +2.00%]" in text
    assert "100.00 ms" not in text.split("2. Full")[0]
    assert "1000.00 ms" in text.split("2. Full")[1]  # 0.1 s a step at an interval of 10
    assert "skipped: wandb" in text
    assert json.loads(report.as_json(found))["default"][0]["wall"]["plain"] == [1.0] * 8


@pytest.mark.slow
def test_what_fails_in_a_process_of_its_own_is_raised():
    with pytest.raises(RuntimeError, match="invalid literal"):
        isolated(int, "many")
    assert isolated(comparing.Pairs, [1.0], [2.0], 1).added == [1.0]


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
