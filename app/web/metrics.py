"""`GET /metrics`: what the server does, for Prometheus.

Requests are counted by each worker in files that all of them share (`PROMETHEUS_MULTIPROC_DIR`, which
`trainvitals serve` sets), everything else is read from the database at the moment of the question: so every worker
gives the same answer.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request

from trainvitals.app.store import Store
from trainvitals.app.web.db import get_store
from trainvitals.app.web.health import free_disk_bytes

bp = Blueprint("metrics", __name__)

SHARED = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper ends of the classes of latencies, seconds."""


class Counters:
    """What one worker counts."""

    def __init__(self) -> None:
        # Loaded now: the library looks for the shared folder when it is imported.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self.requests = Counter(
            "trainvitals_requests",
            "Requests that were answered.",
            ["method", "endpoint", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "trainvitals_request_seconds",
            "Time to an answer, without the time to stream it.",
            ["endpoint"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.at_work = Gauge(
            "trainvitals_requests_at_work",
            "Requests that are being answered.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.records = Counter(
            "trainvitals_ingest_records", "Records stored.", registry=self.registry
        )
        self.bytes = Counter(
            "trainvitals_ingest_bytes",
            "Bytes of the batches that were taken.",
            registry=self.registry,
        )


def register(app: Flask) -> None:
    """Count every request to `app`."""
    counters = Counters()
    app.extensions["trainvitals_counters"] = counters
    app.register_blueprint(bp)

    def begin() -> None:
        g.begun = time.perf_counter()
        counters.at_work.inc()

    def count(response: Response) -> Response:
        endpoint = request.endpoint or "none"
        counters.requests.labels(request.method, endpoint, response.status_code).inc()
        if endpoint == "ingest.append" and response.status_code == 200:
            counters.records.inc((response.get_json(silent=True) or {}).get("stored", 0))
            counters.bytes.inc(request.content_length or 0)
        return response

    def end(_error: BaseException | None) -> None:
        if (begun := g.pop("begun", None)) is not None:
            counters.at_work.dec()
            counters.seconds.labels(request.endpoint or "none").observe(time.perf_counter() - begun)

    app.before_request_funcs.setdefault(None, []).insert(0, begin)  # before any check refuses it
    app.after_request(count)
    app.teardown_request(end)


@bp.get("/metrics")
def metrics() -> Response:
    """Requests, latencies, ingest, database, runs, evaluator and alerts in Prometheus's text format."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    if SHARED in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(current_app.extensions["trainvitals_counters"].registry)
    registry.register(_Stored(get_store()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Stored:
    """What the database says."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Any]:
        """One family of values after the other."""
        from prometheus_client.core import GaugeMetricFamily

        def one(name: str, text: str, value: float) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"trainvitals_{name}", text, value=value)

        def several(name: str, text: str, label: str, values: dict[str, float]) -> Any:
            family = GaugeMetricFamily(f"trainvitals_{name}", text, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            return family

        now, store = time.time(), self._store
        info, census = store.info(), store.census(now)
        yield one("database_bytes", "Size of the database file.", info.bytes)
        yield one("database_free_bytes", "Room in it that nothing is in.", info.free_bytes)
        yield one("database_log_bytes", "Size of its write-ahead log.", info.log_bytes)
        yield one("disk_free_bytes", "Room on its disk.", free_disk_bytes(store))
        yield several("runs", "Runs by how they are doing.", "status", census.runs)
        yield one("runs_archived", "Runs that are put away.", info.archived)
        yield one("runs_deleted", "Deleted runs that can be restored.", info.deleted)
        yield one("records", "Records stored.", census.records)
        yield one("records_unjudged", "Records that the rules have not read yet.", census.unjudged)
        yield one("alerts_pending", "Alerts that no channel has taken yet.", census.alerts)
        yield several("deliveries", "Deliveries by state.", "state", census.deliveries)
        ages = {name: now - sign.time for name, sign in store.signs().items()}
        yield several("sign_age_seconds", "Time since a part was at work.", "part", ages)
