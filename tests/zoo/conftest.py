"""Trainings are run once for all tests that look at them."""

import functools
import gc
import os
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.zoo.compatibility import Table
from tests.zoo.conditions import CONDITIONS
from tests.zoo.harness import Condition, Run, run
from tests.zoo.ranks import run_ranks
from tests.zoo.session import Role


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine reaches a training."""
    for name in [*os.environ]:
        if name.startswith("TRAINVITALS_") or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _quick() -> Iterator[None]:
    """One thread: nets this small lose time on more. And the collector looks at what is new only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Condition, Role], list[Run]]:
    """The training of a condition in a role: one run for each rank."""
    known: dict[tuple[str, Role], list[Run]] = {}
    of_ranks = functools.cache(lambda: run_ranks(tmp_path_factory.mktemp("ranks")))

    def get(condition: Condition, role: Role) -> list[Run]:
        key = condition.id, role
        if key not in known:
            if condition.ranks > 1:
                found = of_ranks()(condition)
                known.update({(condition.id, each): found[each] for each in Role})
            else:
                known[key] = [run(condition, role, tmp_path_factory.mktemp(condition.id[:40]))]
        return known[key]

    return get


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """The table of what is recorded; written anew with --write-compatibility."""
    write = request.config.getoption("--write-compatibility")
    table = Table([condition.name for condition in CONDITIONS], write)
    yield table
    table.save()
