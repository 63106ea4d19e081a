"""What goes wrong on a server's machine: what it says then, that it loses nothing, that it goes on afterwards."""

import sqlite3
import threading
import time

import psutil
import pytest

from benchmarks.stream import proof
from benchmarks.stream.streams import Stream
from trainvitals.app.janitor import clear
from trainvitals.app.retention import Policy
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store, connection
from trainvitals.app.store.status import heard
from trainvitals.app.store.types import Run
from trainvitals.app.web import create_app
from trainvitals.hooks import client as clients
from trainvitals.hooks.client import Client, Outcome, encode
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.limits import BEHIND_HEADER

TYPE = "application/vnd.trainvitals.batch"


@pytest.fixture
def stream():
    return Stream("run-1", layers=8, columns=3, pool=7)


@pytest.fixture
def app(tmp_path):
    app = create_app(Settings(database=tmp_path / "trainvitals.db", threads=4))
    yield app
    app.extensions["trainvitals_store"].close()


@pytest.fixture
def post(app, stream):
    """Send the records from `first` to before `last`."""

    def send(first, last, headers=None):
        body = encode("run-1", "a1", 0, first, [stream.payload(n) for n in range(first, last)])
        path = "/api/v1/runs/run-1/batches"
        return app.test_client().post(path, data=body, content_type=TYPE, headers=headers)

    return send


def holds(database, stream, count):
    """Whether the database has records 0 to before `count`, each once and unchanged."""
    with Store.open(database) as store:
        records = proof.stored(store, "run-1").get("a1/0", [])
    assert len(records) == count
    return proof.compare(records, stream.payload, count, "run-1") + proof.sound(database) == []


@pytest.mark.slow
def test_a_full_disk_is_told_loses_nothing_and_is_recovered_from(server, stream, tmp_path):
    server.log = tmp_path / "server.log"
    server.start()
    client = Client(server.url, "")

    def send(first):
        payloads = [stream.payload(seq) for seq in range(first, first + 50)]
        return client.post("run-1", encode("run-1", "a1", 0, first, payloads))

    assert send(0).next == 50
    workers = server.family()["worker"]
    size = (tmp_path / "trainvitals.db-wal").stat().st_size
    for worker in workers:  # as a disk does that has no room for more
        worker.rlimit(psutil.RLIMIT_FSIZE, (size + 20_000, psutil.RLIM_INFINITY))
    acknowledged = 50
    while (answer := send(acknowledged)).outcome is Outcome.STORED:
        acknowledged = answer.next
    assert answer.outcome is Outcome.LATER and answer.wait >= 5
    assert "disk full" in answer.message and "Nothing was stored" in answer.message
    assert "can't be written" in server.log.read_text()
    assert server.get("/api/v1/runs/run-1")["last_step"] == acknowledged - 3  # still readable

    for worker in workers:
        worker.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    assert send(acknowledged).next == acknowledged + 50
    client.close()
    server.stop()
    assert holds(server.database, stream, acknowledged + 50)


def test_a_database_at_its_largest_size_is_told_like_a_full_disk(
    app, post, stream, tmp_path, caplog
):
    assert post(0, 20).status_code == 200
    held = app.extensions["trainvitals_store"].get()._database._connection()
    (pages,) = held.execute("PRAGMA page_count").fetchone()
    held.execute(f"PRAGMA max_page_count = {pages}")
    first = 20
    while (reply := post(first, first + 50)).status_code == 200:
        first += 50
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "storage")
    assert int(reply.headers["Retry-After"]) >= 5
    assert "full" in caplog.text
    held.execute("PRAGMA max_page_count = 1000000")
    assert post(first, first + 50).json == {"next": first + 50, "stored": 50}
    assert holds(tmp_path / "trainvitals.db", stream, first + 50)


def test_a_database_that_may_not_be_written_is_told_and_goes_on_when_it_may(
    app, post, stream, tmp_path, caplog
):
    assert post(0, 20).status_code == 200
    held = app.extensions["trainvitals_store"].get()._database._connection()
    held.execute("PRAGMA query_only = ON")
    reply = post(20, 40)
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "storage")
    assert "read-only" in reply.json["error"]["message"]
    assert "readonly" in caplog.text
    assert app.test_client().get("/api/v1/runs/run-1").status_code == 200
    held.execute("PRAGMA query_only = OFF")
    assert post(20, 40).json["next"] == 40
    assert holds(tmp_path / "trainvitals.db", stream, 40)


def test_a_locked_database_is_told_before_a_client_gives_up(
    monkeypatch, app, post, stream, tmp_path
):
    assert connection.BUSY_S < clients.TIMEOUT
    monkeypatch.setattr(connection, "BUSY_S", 0.2)
    assert post(0, 20).status_code == 200
    other = sqlite3.connect(tmp_path / "trainvitals.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    reply = post(20, 40)
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "busy")
    assert "Nothing was stored" in reply.json["error"]["message"]
    assert app.test_client().get("/api/v1/runs/run-1").json["last_step"] == 17
    other.execute("ROLLBACK")
    other.close()
    assert post(20, 40).json["next"] == 40
    assert holds(tmp_path / "trainvitals.db", stream, 40)


@pytest.mark.slow
def test_the_log_of_writes_is_emptied_however_busy_the_server_is(
    monkeypatch, tmp_path, stream, app, post
):
    monkeypatch.setattr(connection, "LOG_BYTES", 200_000)
    log = tmp_path / "trainvitals.db-wal"
    app.extensions["trainvitals_store"].get()._database._log_limit = 200_000
    reader = sqlite3.connect(tmp_path / "trainvitals.db", isolation_level=None)
    post(0, 20)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM runs").fetchone()
    for first in range(20, 420, 20):  # the log can't be emptied while somebody reads from it
        assert post(first, first + 20).status_code == 200
    grown = log.stat().st_size
    assert grown > 200_000
    reader.close()
    for first in range(420, 1620, 20):
        assert post(first, first + 20).status_code == 200
    assert log.stat().st_size < grown
    assert holds(tmp_path / "trainvitals.db", stream, 1620)


def test_more_than_fits_is_asked_to_come_again(app, post):
    admission = app.extensions["trainvitals_admission"]
    with admission.hold(1 << 20, behind=False), admission.hold(1 << 20, behind=False):
        reply = post(0, 20)
        assert (reply.status_code, reply.json["error"]["code"]) == (429, "too_many_batches")
        assert int(reply.headers["Retry-After"]) > 0
    with admission.hold(31 << 20, behind=False):
        big = post(0, 20)
        assert big.status_code == 200  # small ones fit beside it
        with (
            pytest.raises(Exception, match="busy with other batches"),
            admission.hold(2 << 20, behind=False),
        ):
            pass
    with admission.hold(64 << 20, behind=False):  # one alone is taken whatever its size
        pass
    assert post(20, 40).json["next"] == 40


def test_who_catches_up_lets_others_go_first(app, post):
    admission = app.extensions["trainvitals_admission"]
    with admission.hold(1 << 20, behind=True):
        assert post(0, 20, headers={BEHIND_HEADER: "1"}).status_code == 429
        assert post(0, 20).status_code == 200
    assert post(20, 40, headers={BEHIND_HEADER: "1"}).status_code == 200


def test_many_clients_at_once_are_bounded_and_all_get_through(app, stream):
    """Ten clients against room for two batches: whatever is refused is sent again, and nothing is lost."""
    statuses = []

    def send(number):
        payloads = [stream.payload(seq) for seq in range(30)]
        body = encode(f"run-{number}", "a1", 0, 0, payloads)
        path = f"/api/v1/runs/run-{number}/batches"
        while True:
            reply = app.test_client().post(path, data=body, content_type=TYPE)
            statuses.append(reply.status_code)
            if reply.status_code == 200:
                return
            time.sleep(0.01)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = app.extensions["trainvitals_store"].get()
    assert [store.next_seq(f"run-{number}", "a1", 0) for number in range(10)] == [30] * 10
    assert set(statuses) <= {200, 429}


def test_a_clock_that_is_put_back_neither_revives_nor_blocks_a_run(app, monkeypatch, stream):
    store = app.extensions["trainvitals_store"].get()
    now = 1.8e9

    def send(first, last, at):
        from trainvitals.hooks.wire.codec import decode_batch

        payloads = [stream.payload(seq) for seq in range(first, last)]
        return store.append(decode_batch(encode("run-1", "a1", 0, first, payloads)), at)

    send(0, 20, now + 86_400)  # the clock is a day ahead, and then right again
    send(20, 40, now)
    run = store.run("run-1")
    assert isinstance(run, Run) and run.last_seen == now
    assert heard(run.last_seen, now + 60) == "lost contact"
    assert heard(now + 86_400, now) == "lost contact"

    assert store.claim("evaluator that was killed", 30.0, now + 86_400) == ["run-1"]
    assert store.claim("its successor", 30.0, now) == ["run-1"]
    assert store.claim("a third one", 30.0, now + 1) == []


def test_each_process_of_a_run_has_its_own_last_contact(app, stream):
    store = app.extensions["trainvitals_store"].get()
    from trainvitals.hooks.wire.codec import decode_batch

    def send(rank, first, last, at):
        payloads = [stream.payload(seq) for seq in range(first, last)]
        store.append(decode_batch(encode("run-1", "a1", rank, first, payloads)), at)

    now = time.time()
    send(0, 0, 9, now - 100)
    send(1, 0, 9, now - 100)
    send(0, 9, 9, now)  # a heartbeat; rank 1 hangs
    seen = {state.rank: state.last_seen for state in store.streams("run-1")}
    assert seen == {0: now, 1: now - 100}
    told = app.test_client().get("/api/v1/runs/run-1").json["streams"]
    assert [(item["rank"], item["status"]) for item in told] == [
        (0, "running"),
        (1, "lost contact"),
    ]


def test_a_run_that_was_deleted_for_good_takes_nothing_more(app, post, tmp_path):
    assert post(0, 20).status_code == 200
    remover = app.test_client()
    assert remover.delete("/api/v1/runs/run-1", headers={"X-Trainvitals": "1"}).status_code == 200
    assert post(20, 40).status_code == 200  # it may still be restored, then it is whole
    with Store.open(tmp_path / "trainvitals.db") as store:
        later = time.time() + 8 * 86_400
        clear(
            store, store.removals(Policy.parse("undo_days=7"), later), later, lambda seconds: None
        )
    for first, last in ((20, 40), (0, 20), (20, 20)):
        reply = post(first, last)
        assert (reply.status_code, reply.json["error"]["code"]) == (410, "run_deleted")
        assert "was deleted" in reply.json["error"]["message"]
    assert remover.get("/api/v1/runs").json["runs"] == []


def test_a_client_of_a_later_release_is_told_which_versions_are_known(app, stream, monkeypatch):
    monkeypatch.setattr(limits, "VERSION", limits.VERSION + 1)
    body = encode("run-1", "a1", 0, 0, [stream.payload(0)])
    monkeypatch.undo()
    path = "/api/v1/runs/run-1/batches"
    reply = app.test_client().post(path, data=body, content_type=TYPE)
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "unknown_version")
    assert f"version {limits.VERSION + 1}" in reply.json["error"]["message"]
    assert "same release" in reply.json["error"]["message"]


def test_a_client_of_the_oldest_release_is_taken(app, stream, monkeypatch):
    monkeypatch.setattr(limits, "VERSION", limits.OLDEST_VERSION)
    body = encode("run-1", "a1", 0, 0, [stream.payload(seq) for seq in range(9)])
    monkeypatch.undo()
    reply = app.test_client().post("/api/v1/runs/run-1/batches", data=body, content_type=TYPE)
    assert reply.json == {"next": 9, "stored": 9}
