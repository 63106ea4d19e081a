"""What holds for the engine whatever the rules say."""

import itertools
import math
import random

import msgspec
import pytest

from trainvitals.app.rules import RULES
from trainvitals.app.rules.engine import Engine, StateError
from trainvitals.hooks.wire.records import Scalars, Step
from trainvitals.hooks.wire.scalars import pack


def sick_run(script, attempt="a1", start=0):
    """A run with something for nearly every rule, in order."""
    run = script(attempt=attempt).linear_stack(6).relu_stack(3)
    generator = random.Random(4)
    for step in range(start, start + 400):
        blow = step - start - 300
        scalars = {
            "loss": 2.3 + generator.gauss(0, 0.05) if blow < 0 else 2.3 * 2.0 ** min(blow, 40),
            "tv/grad_norm": math.exp(generator.gauss(0, 0.2)) * (1 if blow < 0 else 3.0**blow),
            "tv/lr/0": 0.1 if blow < 0 else 3.0,
            "tv/grad_carried": float(150 < step < 170),
            "tv/label_entropy": 2.3026,
            "tv/label_classes": 10.0,
            "tv/label_count": 64.0 * (step + 1),
        }
        sampled = step % 7 == 0 or blow in (0, 1, 2, 3)
        parameters = activations = None
        if sampled:
            parameters = {
                f"fc{i}.weight": {
                    "grad_rms": 10.0 ** (-7 + 0.7 * i),
                    "update_ratio": 0.8 if blow >= 0 else 0.01,
                    "unchanged": float(i == 2 and step > 200),
                }
                for i in range(1, 7)
            }
            share = min(1.0, max(0.0, (step - 200) / 100))
            activations = {"relu2": {"dead_fraction": share, "zero_fraction": 0.5 + share / 2}}
        if blow == 60:
            run.event(step, direction="forward", layer="fc2", type="Linear", nan=3)
            scalars["loss"] = scalars["tv/grad_norm"] = math.nan
        run.step(step, scalars, parameters, activations)
    return run


def feed(engine, run, records=None):
    for record in run.records if records is None else records:
        engine.feed(run.stream, record)
    return engine


def test_the_run_of_these_tests_says_much(script):
    found = sick_run(script).findings()
    assert set(found) >= {
        "nonfinite-activation",
        "nonfinite-loss",
        "nonfinite-gradient",
        "unchanged-parameter",
        "grad-not-zeroed",
        "gradient-vanishing-depth",
        "gradient-exploding",
        "dead-relu-units",
        "update-ratio-high",
        "loss-divergence",
        "loss-stuck-at-prior",
    }


@pytest.mark.parametrize("seed", range(4))
def test_saving_and_loading_anywhere_changes_nothing(script, seed):
    run = sick_run(script)
    whole = feed(Engine(), run)
    cuts = sorted(random.Random(seed).sample(range(len(run.records)), 6))
    engine = Engine()
    for first, last in itertools.pairwise([0, *cuts, len(run.records)]):
        engine = Engine.load(feed(engine, run, run.records[first:last]).save())
    assert engine.findings() == whole.findings()
    assert engine.states() == whole.states()
    assert engine.save() == whole.save()


@pytest.mark.parametrize("size", [2, 3, 50])
def test_steps_gathered_in_one_record_are_judged_like_steps(script, size):
    run = sick_run(script)
    gathered, held = [], []

    def let_go():
        while held:
            some = [(r.step, tuple(r.scalars), list(r.scalars.values())) for r in held[:size]]
            gathered.append(pack(some, 1.0, held[0].seq))
            del held[:size]

    for record in run.records:
        if isinstance(record, Step) and not record.samples:
            held.append(record)
        else:
            let_go()
            gathered.append(record)
    let_go()
    assert any(isinstance(record, Scalars) for record in gathered)
    engine = feed(Engine(), run, gathered)
    assert engine.findings() == run.engine().findings()
    assert engine.states() == run.engine().states()


def test_asking_for_findings_changes_nothing(script):
    run = sick_run(script)
    asked = Engine()
    for record in run.records:
        asked.feed(run.stream, record)
        if record.seq % 20 == 0:
            asked.findings()
            asked.states()
    assert asked.save() == feed(Engine(), run).save()


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_ranks_changes_nothing(script, seed):
    runs = [sick_run(script)]
    for rank, step in ((1, 361), (2, 120), (3, 120)):
        other = script(rank=rank)
        for at in range(0, 400, 5):
            other.step(at, {"loss": 99.0, "tv/grad_norm": math.nan})
            if at == step // 5 * 5:
                other.event(step, direction="backward", layer=f"r{rank}", parameter="w", nan=1)
        runs.append(other)
    expected = Engine()
    for run in runs:
        feed(expected, run)
    generator = random.Random(seed)
    mixed, left = Engine(), [list(run.records) for run in runs]
    while any(left):
        index = generator.choice([i for i, records in enumerate(left) if records])
        count = generator.randint(1, 60)
        feed(mixed, runs[index], left[index][:count])
        del left[index][:count]
    assert mixed.findings() == expected.findings()
    assert mixed.states() == expected.states()


def test_findings_are_plain_json(script):
    for finding in sick_run(script).engine().findings():
        text = msgspec.json.encode(finding)
        curve = finding.evidence.get("curve", {"steps": [], "values": []})
        assert None not in msgspec.json.decode(msgspec.json.encode(curve["values"]))
        assert msgspec.json.decode(text, type=type(finding)) == finding
        assert {"seen", "expected", "since", "where"} <= set(finding.evidence)
        assert finding.title and finding.remedy and finding.evidence["since"] == finding.first_step
        assert len(curve["steps"]) == len(curve["values"]) <= 200


def test_every_consequence_names_a_root(script):
    found = sick_run(script).engine().findings()
    roots = {finding.key for finding in found if finding.root}
    for finding in found:
        assert finding.root == (finding.cause == "")
        assert finding.root or finding.cause in roots


def test_findings_come_worst_first_then_earliest(script):
    order = ["critical", "warning", "info"]
    found = sick_run(script).engine().findings()
    ranks = [(order.index(finding.severity), finding.first_step) for finding in found]
    assert ranks == sorted(ranks)


@pytest.mark.slow
def test_memory_stays_bounded(script):
    run = script().linear_stack(6).relu_stack(3)
    engine, sizes = feed(Engine(), run), []
    for block in range(4):
        part = script().linear_stack(6).relu_stack(3)
        for step in range(block * 1000, block * 1000 + 1000):
            part.step(step, {"loss": 1.0 + step % 3, "tv/grad_norm": 1.0 + step % 5}, {}, {})
        feed(engine, run, part.records[3:])
        sizes.append(len(engine.save()))
    assert sizes[-1] < 60_000 and sizes[-1] < 1.3 * sizes[0]


def test_a_resumed_attempt_goes_on(script):
    engine = feed(Engine(), sick_run(script))
    before = {finding.rule: finding.first_step for finding in engine.findings()}
    later = script(attempt="a2").linear_stack(6)
    for step in range(400, 600):
        later.step(step, {"loss": 1.0, "tv/grad_norm": 1.0}, {})
    after = {finding.rule: finding for finding in feed(engine, later).findings()}
    assert {rule: finding.first_step for rule, finding in after.items()} == before
    assert after["nonfinite-loss"].state == "resolved"


def test_what_an_overtaken_attempt_still_sends_counts_no_more(script):
    later = script(attempt="a2").step(5, {"loss": 1.0})
    engine = feed(Engine(), later)
    state = engine.save()
    feed(engine, sick_run(script), sick_run(script).records[:50])
    assert engine.save() == state


def test_every_rule_says_where_it_stands(script):
    assert [state.rule for state in Engine().states()] == [rule.id for rule in RULES]
    for engine in (Engine(), sick_run(script).engine()):
        assert all(state.reason for state in engine.states())
    assert {state.state for state in Engine().states()} <= {"not enough data", "not applicable"}


@pytest.mark.parametrize("data", [b"", b"\x00", msgspec.msgpack.encode({"version": 0})])
def test_a_damaged_or_foreign_state_is_refused(data):
    with pytest.raises(StateError):
        Engine.load(data)


def test_samples_before_their_layout_are_skipped(script):
    run = script().linear_stack(2)
    step = run.step(0, {"loss": 1.0}, {}).records[-1]
    engine = Engine()
    engine.feed(run.stream, run.records[0])
    engine.feed(run.stream, step)
    assert engine.findings() == []
