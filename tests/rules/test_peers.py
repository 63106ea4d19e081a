"""rank-params-diverged and rank-duplicate-data: what ranks tell of a step is compared in whatever order it comes."""

import itertools
import struct
from types import SimpleNamespace

import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.observe.peers import is_agreed, next_agreed
from trainvitals.hooks.wire.observed import Observed, Peer
from trainvitals.hooks.wire.records import Start, Step

LOOKS = [0, 1, 2, 4, 8, 16, 32]


def weights(*sums):
    return struct.pack(f"<{len(sums)}I", *sums)


def told(rank, *, own_weights=lambda step: weights(step, 7), batch=None, **more):
    """A rank's stream of records."""
    stream = SimpleNamespace(attempt="a", rank=rank)
    records = [Start(seq=0, time=1.0, project="p", name="n", world_size=2)]
    for number, step in enumerate(LOOKS, 1):
        peer = Peer(
            first=0,
            ranks=2,
            batch=batch(step) if batch else f"{rank}/{step}",
            weights=own_weights(step),
            layers=["fc1", "head"] if step == 0 else [],
            **more,
        )
        records.append(Step(seq=number, time=1.0, step=step, observed=Observed(peer=peer)))
    return [(stream, record) for record in records]


def judged(*ranks):
    """Findings by rule and states, the same whichever rank comes first or however they alternate."""
    orders = [list(itertools.chain(*order)) for order in itertools.permutations(ranks)]
    orders.append([entry for entries in zip(*ranks, strict=True) for entry in entries])
    answers = []
    for order in orders:
        engine = Engine()
        for stream, record in order:
            engine.feed(stream, record)
            engine = Engine.load(engine.save())
        assert engine.broken == {}
        states = {state.rule: state.state for state in engine.states()}
        answers.append(({finding.rule: finding for finding in engine.findings()}, states))
    assert all(answer[0] == answers[0][0] for answer in answers)
    return answers[0]


def test_steps_that_all_ranks_tell_of_follow_from_their_number():
    agreed = [step for step in range(2001) if is_agreed(step)]
    assert agreed[:6] == [0, 1, 2, 4, 8, 16] and agreed[-4:] == [1000, 1024, 1500, 2000]
    assert [next_agreed(step) for step in (0, 1, 3, 9, 257, 501, 1025)] == [
        0,
        1,
        4,
        16,
        500,
        512,
        1500,
    ]


def test_equal_weights_and_other_batches_are_fine():
    found, states = judged(told(0), told(1))
    assert found == {}
    assert states["rank-params-diverged"] == states["rank-duplicate-data"] == "ok"


@pytest.mark.parametrize("since", [0, 1, 8])
def test_weights_that_differ_are_told_with_their_step_and_layer(since):
    def parted(step):
        return weights(step, 7 if step < since else 8)

    found, _ = judged(told(0), told(1, own_weights=parted))
    finding = found["rank-params-diverged"]
    assert (finding.severity, finding.first_step, finding.layers) == ("critical", since, ["head"])
    assert finding.title.endswith(f"since step {since}") and finding.evidence["ranks"] == [1]


def test_one_look_that_differs_is_not_enough():
    found, states = judged(told(0), told(1, own_weights=lambda s: weights(s, 7 + (s == 4))))
    assert found == {} and states["rank-params-diverged"] == "ok"


def test_weights_that_are_equal_again_are_resolved():
    found, _ = judged(told(0), told(1, own_weights=lambda s: weights(s, 7 + (1 < s < 16))))
    finding = found["rank-params-diverged"]
    assert (finding.state, finding.first_step, finding.last_step) == ("resolved", 2, 8)


def test_ranks_on_other_devices_are_not_compared():
    one, two = told(0, device="A"), told(1, device="B", own_weights=lambda s: weights(s, 1))
    found, states = judged(one, two)
    assert found == {} and states["rank-params-diverged"] == "not applicable"


def test_a_rank_that_says_why_is_not_compared():
    ranks = [told(rank, own_weights=lambda s: b"", why="Shards.") for rank in (0, 1)]
    found, states = judged(*ranks)
    assert found == {} and states["rank-params-diverged"] == "not applicable"


def test_three_common_batches_are_told():
    found, _ = judged(told(0, batch=lambda s: f"b{s}"), told(1, batch=lambda s: f"b{s}"))
    finding = found["rank-duplicate-data"]
    assert (finding.severity, finding.first_step) == ("critical", 0)
    assert finding.title == "Rank 1 trains on the batches of rank 0, since step 0"


@pytest.mark.parametrize(
    "batch", [lambda s: "the only one", lambda s: f"b{s % 2}"], ids=["one", "two"]
)
def test_a_few_batches_that_come_again_prove_nothing(batch):
    found, _ = judged(told(0, batch=batch), told(1, batch=batch))
    assert "rank-duplicate-data" not in found


def test_batches_that_agree_by_chance_prove_nothing():
    found, _ = judged(
        told(0, batch=lambda s: f"b{s}"),
        told(1, batch=lambda s: f"b{s}" if s in (1, 2, 16) else f"own {s}"),
    )
    assert found == {}


def test_one_rank_alone_is_not_enough_and_a_single_process_is_not_judged():
    engine = Engine()
    for stream, record in told(0):
        engine.feed(stream, record)
    states = {state.rule: state.state for state in engine.states()}
    assert states["rank-params-diverged"] == "not enough data"
    assert {state.rule: state.state for state in Engine().states()}[
        "rank-duplicate-data"
    ] == "not applicable"
