"""Which ids the ranks of a launch give a run, without a process group."""

import os

import pytest

from trainvitals.hooks import launch


def told(monkeypatch: pytest.MonkeyPatch, **variables: str) -> launch.Ids:
    """Ids of a rank that is told these variables and has started no run before."""
    monkeypatch.setattr(launch, "_asked", 0)
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return launch.ids()


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}


def test_a_single_process_has_ids_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = told(monkeypatch), told(monkeypatch)
    assert first.agreed and second.agreed
    assert first.run != second.run and first.attempt != second.attempt


def test_ranks_of_a_torchrun_have_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    first = told(monkeypatch, RANK="0", **TORCHRUN)
    second = told(monkeypatch, RANK="3", **TORCHRUN)
    assert first == second and first.agreed


def test_their_second_run_has_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    first = told(monkeypatch, **TORCHRUN)
    second = launch.ids()
    assert first.run != second.run and first.attempt != second.attempt


def test_a_restart_is_a_later_attempt_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = [
        told(monkeypatch, TORCHELASTIC_RESTART_COUNT=str(count), **TORCHRUN) for count in range(12)
    ]
    assert len({life.run for life in lives}) == 1
    attempts = [life.attempt for life in lives]
    assert sorted(attempts) == attempts and len(set(attempts)) == 12


def test_ranks_of_several_machines_do_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    several = TORCHRUN | {"WORLD_SIZE": "8"}
    assert not told(monkeypatch, **several).agreed


def test_ranks_of_another_launcher_do_not_agree_but_share_an_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = told(monkeypatch, RANK="0", WORLD_SIZE="2")
    second = told(monkeypatch, RANK="1", WORLD_SIZE="2")
    assert not first.agreed and not second.agreed
    assert first.attempt == second.attempt and str(os.getppid()) in first.attempt
