"""Wrong input gets an answer that says what was wrong, never a 500, and changes nothing."""

import os
import random
import struct
import zlib
from typing import NamedTuple

import msgspec
import pytest

from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.codec import encode_batch

BATCH = "application/vnd.trainvitals.batch"
HEADER = struct.Struct("<4sBII")


def wrap(raw: bytes, *, length: int | None = None, compression: int = 1) -> bytes:
    packed = zlib.compress(raw, 1) if compression == 1 else raw
    size = len(raw) if length is None else length
    return HEADER.pack(b"TVB1", compression, size, zlib.crc32(raw)) + packed


def batch_like(**changes) -> dict:
    good = {
        "version": 1,
        "run": "run-1",
        "attempt": "a1",
        "rank": 0,
        "first": 12,
        "records": [{"type": "step", "seq": 12, "time": 1e9, "step": 10, "scalars": {"loss": 1.0}}],
    }
    return good | changes


def step(**changes) -> dict:
    return {"type": "step", "seq": 12, "time": 1e9, "step": 10} | changes


def scalars(**changes) -> dict:
    """Two rows of one scalar."""
    good = {"type": "scalars", "seq": 12, "time": 1e9, "names": [["loss"]]}
    return (
        good | {"steps": struct.pack("<2q", 10, 11), "values": struct.pack("<2d", 1, 2)} | changes
    )


def event(**changes) -> dict:
    return {"type": "event", "seq": 12, "time": 1e9, "step": 1, "kind": "x"} | changes


def end(**changes) -> dict:
    return {"type": "end", "seq": 12, "time": 1e9, "step": 1} | changes


def layout(**changes) -> dict:
    good = {"type": "layout", "seq": 12, "time": 1e9, "step": 1, "group": 3, "kind": "activation"}
    return good | {"rows": [{"name": "a"}], "columns": ["a"]} | changes


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x90"


def deep(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


class Answer(NamedTuple):
    """What came of a body."""

    status: int
    code: str
    message: str
    changed: bool
    """Whether the store has other runs than before, or the run has changed."""

    @property
    def refused(self) -> bool:
        """Whether it was the sender's fault, is told in words, and has left everything as it was."""
        told = bool(self.code) and len(self.message) > 20
        return 400 <= self.status < 500 and told and not self.changed


@pytest.fixture(scope="module")
def post(open_app, tmp_path_factory, batch):
    """Send a body to a server that has one run."""
    client = open_app(tmp_path_factory.mktemp("malformed") / "trainvitals.db").test_client()
    good = encode_batch(batch(count=12))
    client.post("/api/v1/runs/run-1/batches", data=good, content_type=BATCH)
    before = client.get("/api/v1/runs/run-1").json

    def send(body: bytes, path: str = "run-1") -> Answer:
        reply = client.post(f"/api/v1/runs/{path}/batches", data=body, content_type=BATCH)
        error = (reply.json or {}).get("error", {})
        after = client.get("/api/v1/runs/run-1").json
        same = after == before | {"last_seen": after["last_seen"]}
        changed = not same or len(client.get("/api/v1/runs").json["runs"]) != 1
        return Answer(reply.status_code, error.get("code", ""), error.get("message", ""), changed)

    return send


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"T",
        b"TVB1",
        b"{}",
        b"\0" * 100,
        b"TVB2" + b"\0" * 20,
        HEADER.pack(b"TVB1", 1, 10, 0),
        HEADER.pack(b"TVB1", 9, 4, zlib.crc32(b"abcd")) + b"abcd",
    ],
)
def test_what_is_no_batch_is_refused(post, body):
    answer = post(body)
    assert answer.refused, answer
    assert (answer.status, answer.code) == (400, "invalid_batch")


def test_a_batch_cut_off_anywhere_is_refused(post, batch):
    body = encode_batch(batch(first=12, count=4))
    for length in [*range(20), *range(20, len(body), max(len(body) // 40, 1))]:
        answer = post(body[:length])
        assert answer.refused and answer.status == 400, (length, answer)


def test_a_batch_with_any_byte_flipped_is_refused(post, batch):
    body = encode_batch(batch(first=12, count=4))
    chosen = random.Random(0)
    for position in [*range(13), *chosen.sample(range(13, len(body)), 60)]:
        damaged = bytearray(body)
        damaged[position] ^= 1 << chosen.randrange(8)
        answer = post(bytes(damaged))
        assert answer.refused, (position, answer)


def test_random_bytes_are_refused(post):
    chosen = random.Random(1)
    for _ in range(50):
        raw = chosen.randbytes(chosen.randrange(200))
        assert post(raw).refused, raw
        framed = wrap(chosen.randbytes(chosen.randrange(200)))
        assert post(framed).refused, framed


def test_a_body_over_the_limit_is_refused(post):
    answer = post(b"TVB1" + os.urandom(limits.MAX_BATCH_BYTES))
    assert answer.refused, answer
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_decompression_bomb_is_refused(post):
    bomb = zlib.compress(b"\0" * (200 << 20), 9)
    assert len(bomb) < 1 << 20
    honest = post(HEADER.pack(b"TVB1", 1, 200 << 20, 0) + bomb)
    assert honest.refused, honest
    assert (honest.status, honest.code) == (413, "too_large")
    played_down = post(HEADER.pack(b"TVB1", 1, 1 << 20, 0) + bomb)
    assert played_down.refused and played_down.status == 400, played_down


def test_another_version_is_refused_and_named(post):
    answer = post(wrap(msgspec.msgpack.encode(batch_like(version=3))))
    assert answer.refused, answer
    assert (answer.status, answer.code) == (400, "unknown_version")
    assert "version 3" in answer.message and "versions 1 to 2" in answer.message


@pytest.mark.parametrize(
    "change",
    [
        {"run": 5},
        {"run": None},
        {"attempt": []},
        {"rank": "0"},
        {"rank": -1},
        {"rank": 1_000_000},
        {"first": -1},
        {"first": float("nan")},
        {"first": True},
        {"records": {}},
        {"records": [1]},
        {"records": [None]},
        {"records": [{}]},
        {"records": [{"type": "no such record", "seq": 12}]},
        {"records": [step(seq=13)]},
        {"records": [step(seq="12")]},
        {"records": [step(step=-1)]},
        {"records": [step(step=2**53 + 2)]},
        {"records": [step(step=1.5)]},
        {"records": [step(time=float("nan"))]},
        {"records": [step(time=float("inf"))]},
        {"records": [step(time=-1.0)]},
        {"records": [step(time="now")]},
        {"records": [step(scalars={"loss": "low"})]},
        {"records": [step(scalars={"loss": None})]},
        {"records": [step(scalars={"": 1.0})]},
        {"records": [step(scalars={5: 1.0})]},
        {"records": [step(scalars={"x" * 513: 1.0})]},
        {"records": [step(scalars={f"m{n}": 1.0 for n in range(1001)})]},
        {"records": [scalars(steps=b"")]},
        {"records": [scalars(steps=b"1234567")]},
        {"records": [scalars(steps=struct.pack("<q", 10))]},
        {"records": [scalars(steps=struct.pack("<2q", 10, -1))]},
        {"records": [scalars(steps=struct.pack("<2q", 10, 2**53 + 1))]},
        {"records": [scalars(values=b"")]},
        {"records": [scalars(values=bytes(17))]},
        {"records": [scalars(values=bytes(24))]},
        {"records": [scalars(kinds=b"\0")]},
        {"records": [scalars(kinds=b"\0\1")]},
        {"records": [scalars(names=[])]},
        {"records": [scalars(names=[["loss"]] * 257)]},
        {"records": [scalars(names=[["loss", "loss"]], values=bytes(32))]},
        {"records": [scalars(names=[[""]])]},
        {"records": [scalars(names=[["x" * 513]])]},
        {"records": [scalars(names=[[f"m{n}" for n in range(1001)]], values=bytes(16016))]},
        {"records": [scalars(steps=bytes(8 * 257), values=bytes(8 * 257))]},
        {"records": [scalars(time=float("nan"))]},
        {"records": [step(samples=[{"group": 0, "values": "text"}])]},
        {"records": [step(samples=[{"group": -1, "values": b""}])]},
        {"records": [step(samples=[{"group": 1 << 40, "values": b""}])]},
        {"records": [step(samples=[{"group": 0, "values": b"123"}])]},
        {"records": [step(histograms=[{"group": 0, "kind": "weight", "counts": b"\xff"}])]},
        {"records": [step(histograms=[{"group": 0, "kind": "sound", "counts": b""}])]},
        {"records": [{"type": "start", "seq": 12, "time": 1e9, "project": "p", "name": "n"}]},
        {"records": [event(kind="")]},
        {"records": [event(data={"d": deep(40)})]},
        {"records": [event(data={"n": 2**60})]},
        {"records": [event(layer="x" * 513)]},
        {"records": [end(status="splendid")]},
        {"records": [end(status="failed", message="x" * 20_000)]},
        {"records": [layout(rows=[])]},
        {"records": [layout(rows=[{"name": "a"}, {"name": "a"}])]},
        {"records": [layout(columns=["a", "a"])]},
        {"records": [layout(columns=["a"] * 65)]},
        {"records": [layout(group=256)]},
        {"records": [layout(rows=[{"name": "a", "shape": [-1]}])]},
        {"records": [layout(kind="sound")]},
    ],
    ids=str,
)  # fmt: skip
def test_a_batch_of_the_wrong_form_or_meaning_is_refused(post, change):
    answer = post(wrap(msgspec.msgpack.encode(batch_like(**change))))
    assert answer.refused, answer


@pytest.mark.parametrize(
    "raw",
    [
        nested(10_000),
        nested(1_000_000),
        b"\x81\xa7version" + nested(100_000),
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc1",
        b"\x81\xa7version\x01",
        b"\x82\xa7version\x01\xa3run\xa3\xff\xfe\xfd",
    ],
    ids=lambda raw: raw[:12].hex(),
)
def test_hostile_msgpack_is_refused(post, raw):
    answer = post(wrap(raw))
    assert answer.refused, answer


@pytest.mark.parametrize(
    "run",
    [
        *("..", "../x", "a/../b", ".hidden", "-rf", "a b", "a\0b", "a\nb", "é", "a%00", "x" * 65),
        *("<script>", "'; DROP TABLE runs;--", "a..b", "con:", "nan\u202e"),
    ],
    ids=ascii,
)
def test_a_hostile_run_id_is_refused(post, batch, run):
    answer = post(encode_batch(batch(run=run)))
    assert answer.refused, answer


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc%2fpasswd", "%00", "..", "%2e%2e", "a%0ab", "%ff", "x" * 3000]
)
def test_a_hostile_address_is_refused(post, batch, path):
    answer = post(encode_batch(batch(first=12, count=2)), path)
    assert answer.refused, answer


def test_a_hostile_name_is_stored_and_told_as_it_is(client, batch):
    from trainvitals.hooks.wire.records import Start

    name = "<img src=x onerror=alert(1)>\u202e'\";--\0"
    start = Start(
        seq=0, time=1e9, project=name, name=name, tags=[name], config={name: float("nan")}
    )
    body = encode_batch(batch(records=[start]))
    assert (
        client.post("/api/v1/runs/run-1/batches", data=body, content_type=BATCH).status_code == 200
    )
    run = client.get("/api/v1/runs/run-1").json
    assert run["name"] == run["project"] == name
    assert run["config"] == {name: "nan"}


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head"])
def test_the_wrong_method_is_refused(client, method):
    reply = getattr(client, method)("/api/v1/runs/run-1/batches", headers={"X-Trainvitals": "1"})
    assert reply.status_code == 405
    assert reply.headers["Allow"] == "OPTIONS, POST"
