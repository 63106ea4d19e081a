"""Small trainings by other people's loops, and what the dashboard then knows of their runs."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import trainvitals.hooks as tv
from trainvitals.app.evaluator import Evaluator
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.app.web import create_app
from trainvitals.hooks.integrations import tensorboard
from trainvitals.hooks.spool import find_streams, read_meta, read_stream
from trainvitals.hooks.wire.records import Batch


class Dashboard:
    """What the server tells of the runs that were recorded, by its API."""

    def __init__(self, client: Any, store: Store) -> None:
        self.client = client
        self.store = store

    def get(self, address: str) -> Any:
        response = self.client.get(f"/api/v1/runs{address}")
        assert response.status_code == 200, response.text
        return response.json

    def runs(self) -> list[str]:
        return [run["id"] for run in self.get("")["runs"]]

    def run(self) -> Any:
        """The only run."""
        (only,) = self.runs()
        return self.get(f"/{only}")

    def series(self, name: str) -> dict[int, float]:
        """Step to the last value logged for it."""
        read = self.get(f"/{self.run()['id']}/series?points=20000&names={name}")["series"][name]
        return dict(zip(read["steps"], read["last"], strict=True))

    def layers(self, kind: str = "activation") -> list[str]:
        return [
            row["name"]
            for group in self.run()["groups"]
            if group["kind"] == kind
            for row in group["rows"]
        ]

    def matrix(self, kind: str, statistic: str) -> Any:
        address = f"/{self.run()['id']}/matrix?kind={kind}&statistic={statistic}&buckets=5000"
        return self.get(address)

    def figures(self) -> dict[str, Any]:
        answer = self.get(f"/{self.run()['id']}/figures/metrics")
        return {figure["key"]: figure for figure in answer["figures"]}

    def findings(self) -> list[Any]:
        return list(self.get(f"/{self.run()['id']}/findings")["findings"])

    def problems(self) -> list[str]:
        events = self.get(f"/{self.run()['id']}/events")["events"]
        return [event["message"] for event in events if event["kind"] == "monitor"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny nets gain nothing from more threads, which only wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variable of the machine reaches a test, nothing of a test outlives it, and the libraries may warn."""
    for name in ("URL", "TOKEN", "PROJECT", "RUN_NAME", "RUN_ID", "TAGS", "ATTEMPT"):
        monkeypatch.delenv(f"TRAINVITALS_{name}", raising=False)
    monkeypatch.setenv("TRAINVITALS_MODE", "offline")
    monkeypatch.setenv("TRAINVITALS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        tv.finish()
        tensorboard._open.clear()


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Callable[[], Dashboard]]:
    """Brings all that was recorded to a server, lets the rules judge it, and asks."""
    made: list[Any] = []
    stores: list[Store] = []

    def open_it() -> Dashboard:
        path = tmp_path / f"{len(made)}.db"
        store = Store.open(path)
        streams = [
            (read_meta(folder), folder) for folder in find_streams(tmp_path / ".trainvitals")
        ]
        for meta, folder in sorted(streams, key=lambda stream: (stream[0].attempt, stream[0].rank)):
            records = list(read_stream(folder))
            batch = Batch(
                version=1,
                run=meta.run,
                attempt=meta.attempt,
                rank=meta.rank,
                first=0,
                records=records,
            )
            store.append(batch, records[-1].time)
        store.close()
        settings = Settings(database=path)
        evaluator = Evaluator(path, settings)
        while evaluator.tick(1.0):
            pass
        evaluator.close()
        app = create_app(settings)
        made.append(app)
        stores.append(Store.open(path))
        return Dashboard(app.test_client(), stores[-1])

    yield open_it
    for store in [*stores, *(app.extensions["trainvitals_store"] for app in made)]:
        store.close()
