"""POST /api/v1/runs/<id>/batches."""

import sqlite3

import pytest

from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import encode_batch
from trainvitals.hooks.wire.records import Sample, Step

BATCH = "application/vnd.trainvitals.batch"


def test_a_batch_is_stored_and_the_next_number_told(client, send):
    reply = send(count=12)
    assert reply.status_code == 200
    assert reply.json == {"next": 12, "stored": 12}
    assert client.get("/api/v1/runs/run-1").json["last_step"] == 9


def test_a_repeated_batch_changes_nothing(client, send):
    send()
    before = client.get("/api/v1/runs/run-1").json["version"]
    assert send().json == {"next": 12, "stored": 0}
    assert client.get("/api/v1/runs/run-1").json["version"] == before


def test_an_overlapping_batch_adds_only_what_is_new(send):
    send(count=12)
    assert send(first=8, count=10).json == {"next": 18, "stored": 6}


def test_a_gap_is_refused_with_the_number_that_is_expected(send):
    send(count=12)
    reply = send(first=20, count=3)
    assert reply.status_code == 409
    assert reply.json["expected"] == 12
    assert reply.json["error"]["code"] == "sequence_gap"


def test_a_heartbeat_is_taken_and_stores_nothing(send):
    send(count=12)
    assert send(first=12, records=[]).json == {"next": 12, "stored": 0}


def test_ranks_and_attempts_are_streams_of_their_own(send):
    assert send(rank=0).json["next"] == 12
    assert send(rank=1).json == {"next": 12, "stored": 12}
    assert send(attempt="a2").json == {"next": 12, "stored": 12}


def test_a_sample_of_the_wrong_size_is_refused_as_a_record(client, send):
    send(count=12)
    wrong = Step(seq=12, time=1e9, step=10, samples=[Sample(group=0, values=b"\0" * 12)])
    reply = send(first=12, records=[wrong])
    assert reply.status_code == 422
    assert reply.json["error"]["code"] == "invalid_record"
    assert send(first=12, records=[]).json["next"] == 12


def test_a_sample_of_a_group_without_layout_is_refused(send):
    send(count=12)
    unknown = Step(seq=12, time=1e9, step=10, samples=[Sample(group=7, values=b"\0" * 64)])
    assert send(first=12, records=[unknown]).status_code == 422


def test_the_run_of_the_address_must_be_the_run_of_the_batch(client, batch):
    body = encode_batch(batch(run="run-1"))
    reply = client.post("/api/v1/runs/run-2/batches", data=body, content_type=BATCH)
    assert reply.status_code == 400
    assert client.get("/api/v1/runs").json["runs"] == []


def test_another_content_type_is_refused(client, batch):
    body = encode_batch(batch())
    reply = client.post("/api/v1/runs/run-1/batches", data=body, content_type="application/json")
    assert reply.status_code == 415
    assert BATCH in reply.json["error"]["message"]


def test_writing_needs_the_token_when_there_is_one(make_app, batch):
    client = make_app(token="s3cret").test_client()
    body = encode_batch(batch())

    def status(headers):
        path = "/api/v1/runs/run-1/batches"
        return client.post(path, data=body, content_type=BATCH, headers=headers)

    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic czNjcmV0"},
        {"Authorization": "s3cret"},
        {"Authorization": "Bearer s3cret\xff"},
    ):
        reply = status(headers)
        assert reply.status_code == 401, headers
        assert "s3cret" not in reply.text
    assert client.get("/api/v1/runs").json["runs"] == []
    assert status({"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_read_token_does_not_allow_writing(make_app, batch):
    client = make_app(token="writes", read_token="reads").test_client()
    reply = client.post(
        "/api/v1/runs/run-1/batches",
        data=encode_batch(batch()),
        content_type=BATCH,
        headers={"Authorization": "Bearer reads"},
    )
    assert reply.status_code == 401


@pytest.mark.parametrize("text", ["database is locked", "database table is locked: runs"])
def test_a_busy_database_asks_to_try_again(monkeypatch, send, text):
    def busy(*_):
        raise sqlite3.OperationalError(text)

    monkeypatch.setattr(Store, "append", busy)
    reply = send()
    assert reply.status_code == 503
    assert int(reply.headers["Retry-After"]) > 0
    assert reply.json["error"]["code"] == "busy"


def test_an_unexpected_error_is_logged_under_the_number_it_is_told_by(monkeypatch, send, caplog):
    def broken(*_):
        raise RuntimeError("the inside of the machine")

    monkeypatch.setattr(Store, "append", broken)
    reply = send()
    assert reply.status_code == 500
    assert "inside" not in reply.text
    number = reply.json["error"]["message"].rstrip(".").rsplit(" ", 1)[1]
    assert number in caplog.text
    assert "the inside of the machine" in caplog.text
