"""Readiness, metrics, shelves and export by the API."""

import csv
import io
import shutil
import sqlite3
import time
from collections import namedtuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trainvitals.app.store import Store

HEADER = {"X-Trainvitals": "1"}


@pytest.fixture
def database(tmp_path):
    return tmp_path / "trainvitals.db"


@pytest.fixture
def alive(database):
    with Store.open(database) as store:
        store.sign("evaluator", time.time())
        yield store


def readiness(client):
    reply = client.get("/readyz")
    wrong = {name for name, check in reply.json["checks"].items() if not check["ok"]}
    assert (reply.status_code == 200) is (not wrong) is reply.json["ready"]
    return wrong


def values(client):
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_server_is_ready_when_all_of_it_works(client, alive):
    assert readiness(client) == set()


def test_without_an_evaluator_it_is_not_ready(client, database):
    Store.open(database).close()
    assert readiness(client) == {"evaluator"}


def test_an_evaluator_that_fell_silent_is_seen(client, alive):
    alive.sign("evaluator", time.time() - 90)
    assert readiness(client) == {"evaluator"}


def test_a_database_that_cannot_be_written_is_seen(client, alive, database, monkeypatch):
    monkeypatch.setattr("trainvitals.app.store.upkeep._PROBE_S", 0.01)
    assert readiness(client) == set()
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert readiness(client) == {"database"}
    holder.execute("ROLLBACK")
    holder.close()
    assert readiness(client) == set()


def test_a_schema_of_a_later_release_is_seen(client, alive, database):
    assert readiness(client) == set()
    other = sqlite3.connect(database)
    other.execute("PRAGMA user_version = 999")
    other.close()
    assert readiness(client) == {"schema"}


def test_a_full_disk_is_seen(client, alive, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**6, 10**6))
    assert readiness(client) == {"disk"}


def test_trouble_of_retention_is_seen(client, alive):
    alive.sign("retention", time.time(), removed=0, error="disk I/O error")
    assert readiness(client) == {"retention"}
    assert "disk I/O" in client.get("/readyz").json["checks"]["retention"]["message"]


def test_readiness_needs_no_token_and_metrics_do(make_app, alive):
    client = make_app(token="t", read_token="r").test_client()
    assert client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 401
    right = {"Authorization": "Bearer r"}
    assert client.get("/metrics", headers=right).status_code == 200


def test_metrics_count_requests_and_what_came_in(client, send):
    assert send(count=12).status_code == 200
    assert send(count=12).status_code == 200  # the same again: nothing new
    assert send(first=90, count=3).status_code == 409
    for _ in range(3):
        client.get("/api/v1/runs")
    client.get("/nope")
    found = values(client)
    assert found["trainvitals_requests_total", "api.list_runs", "GET", "200"] == 3
    assert found["trainvitals_requests_total", "ingest.append", "POST", "200"] == 2
    assert found["trainvitals_requests_total", "ingest.append", "POST", "409"] == 1
    assert found["trainvitals_requests_total", "none", "GET", "404"] == 1
    assert found["trainvitals_request_seconds_count", "api.list_runs"] == 3
    assert found["trainvitals_request_seconds_bucket", "api.list_runs", "+Inf"] == 3
    assert found["trainvitals_ingest_records_total",] == 12
    assert found["trainvitals_requests_at_work",] == 1  # this one


def test_metrics_tell_what_is_stored(client, send, alive):
    send(run="run-1", count=12)
    send(run="run-2", count=10, end="finished")
    alive.archive_run("run-2", time.time())
    send(run="run-3", count=5)
    alive.delete_run("run-3", time.time())
    found = values(client)
    assert found["trainvitals_runs", "running"] == 1
    assert found["trainvitals_runs", "finished"] == 1
    assert found["trainvitals_runs_archived",] == 1
    assert found["trainvitals_runs_deleted",] == 1
    assert found["trainvitals_records",] == 22
    assert found["trainvitals_records_unjudged",] == 22
    assert found["trainvitals_alerts_pending",] == 0
    assert found["trainvitals_database_bytes",] == alive.info().bytes > 50_000
    assert 0 <= found["trainvitals_sign_age_seconds", "evaluator"] < 60


def test_a_run_goes_from_shelf_to_shelf(client, send):
    send(count=12)

    def shelves():
        asked = {s: client.get(f"/api/v1/runs?shelf={s}").json["runs"] for s in names}
        return [name for name in names if asked[name]]

    names = ("active", "archived", "deleted")
    address = "/api/v1/runs/run-1"
    client.post(f"{address}/archive", headers=HEADER)
    assert shelves() == ["archived"]
    assert client.get(address).json["archived"].endswith("Z")
    client.delete(address, headers=HEADER)
    assert shelves() == ["deleted"]
    assert client.get(address).status_code == 404
    client.post(f"{address}/restore", headers=HEADER)
    assert shelves() == ["archived"]
    client.post(f"{address}/unarchive", headers=HEADER)
    assert shelves() == ["active"]
    assert client.get(address).json["archived"] is None


def test_an_export_is_a_file(client, send):
    send(count=12)
    reply = client.get("/api/v1/runs/run-1/export?what=activations&format=csv")
    assert reply.mimetype == "text/csv"
    assert 'filename="run-1-activations.csv"' in reply.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [(row["step"], row["name"], row["std"]) for row in rows[:2]] == [
        ("0", "fc1", "2.0"),
        ("0", "fc2", "2.0"),
    ]
    assert len(rows) == 20


@pytest.mark.parametrize("query", ["what=nope", "format=xlsx"])
def test_an_export_of_what_is_not_there_says_what_is(client, send, query):
    send(count=12)
    reply = client.get(f"/api/v1/runs/run-1/export?{query}")
    assert reply.status_code == 400
    assert "expected one of" in reply.json["error"]["message"]
