"""At which steps the loop is looked at: often at first, ever more seldom, and after an evaluation."""

import itertools

from trainvitals.hooks.observe.looks import DENSE, Looks, NoLooks


def planned(steps: int, evaluated: int = 0, begin: int = 0) -> list[int]:
    """Steps that are looked at, of a loop that evaluates before every `evaluated`-th step."""
    looks, found = Looks(), []
    looks.resume(begin)
    for step in range(begin, begin + steps):
        if evaluated and step % evaluated == 0:
            looks.interrupted(step)
        if step >= looks.next_step:
            found.append(step)
            looks.looked(step)
    return found


def test_the_first_steps_are_all_looked_at_and_later_ones_at_growing_distances() -> None:
    found = planned(1_000)
    assert found[:DENSE] == list(range(DENSE))
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert gaps == sorted(gaps) and gaps[-1] > 40


def test_a_long_run_costs_some_tens_of_looks() -> None:
    assert 40 < len(planned(100_000)) < 80


def test_a_run_that_goes_on_is_looked_at_as_closely_as_a_new_one() -> None:
    assert planned(100, begin=5_000) == [5_000 + step for step in planned(100)]


def test_the_step_after_an_evaluation_is_looked_at_unless_one_right_before_it_was() -> None:
    found = planned(20_000, evaluated=500)
    for evaluated in range(500, 20_000, 500):
        near = [step for step in found if -0.13 * evaluated < step - evaluated <= 1]
        assert near


def test_a_loop_that_evaluates_at_every_step_is_looked_at_twice_as_often_at_most() -> None:
    assert len(planned(10_000, evaluated=1)) < 2.2 * len(planned(10_000))


def test_samples_at_a_fixed_interval_are_looks_until_they_are_close_for_the_length_of_the_run() -> (
    None
):
    looks = Looks()
    looks.resume(0)
    worth = []
    for step in range(0, 2_000, 10):
        if looks.is_worth(step):
            worth.append(step)
            looks.looked(step)
    assert worth[:20] == list(range(0, 200, 10))
    late = [after - before for before, after in itertools.pairwise(worth) if before >= 1_000]
    assert 50 <= min(late) and max(late) <= 110


def test_a_rank_that_does_not_record_plans_nothing() -> None:
    looks = NoLooks()
    looks.resume(3)
    looks.interrupted(3)
    assert looks.next_step > 10**8
