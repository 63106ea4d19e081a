"""A run followed in frames is the run as it is; what is made of it is made once for each version."""

import threading

import numpy as np
import pytest

from trainvitals.app.store import Store
from trainvitals.app.web import frames, live, livemap, memory


@pytest.fixture
def followed(clock, tmp_path, made_run):
    """A store, the same in frames, and a function that adds batches of a run to it."""
    with Store.open(tmp_path / "t.db") as store:
        batches = iter(made_run("run-1", steps=900, sick=True, every=3).batches(30))

        def grow(count=1, pause=frames.FRAME_S):
            for _ in range(count):
                store.append(next(batches), 1e9)
            clock.now += pause

        yield store, frames.framed(store), grow


def same(one, other):
    return all(
        np.allclose(getattr(one, part), getattr(other, part), rtol=1e-5, equal_nan=True)
        if len(one.steps) == len(other.steps)
        else False
        for part in one.__dataclass_fields__
        if part != "rows"
    )


def test_curves_and_matrices_that_are_followed_are_those_of_the_store(followed):
    store, shown, grow = followed
    seen = 0
    for _ in range(20):
        grow()
        names = store.scalar_names("run-1")
        for points in (10, 200):
            whole = store.series("run-1", names, points=points)
            kept = shown.series("run-1", names, points=points)
            assert list(kept) == list(whole)
            assert all(same(kept[name], whole[name]) for name in whole)
        for kind, keys in (
            ("activation", ["std", "rms", "nothing"]),
            ("parameter", ["grad_rms"]),
        ):
            kept = shown.matrices("run-1", kind, keys, buckets=50)
            assert list(kept) == keys
            for key in keys:
                whole = store.matrix("run-1", kind, key, buckets=50)
                assert kept[key].rows == whole.rows
                assert same(kept[key], whole)
                seen = max(seen, len(whole.steps))
    assert seen >= 25


def test_a_version_that_is_told_is_of_points_that_are_shown(followed):
    """What comes in the middle of a frame, after its curves were read, is not told as known, or no page would ask."""
    store, shown, grow = followed
    grow(2)
    names = store.scalar_names("run-1")[:1]
    curve = shown.series("run-1", names, points=1000)
    version = store.run("run-1").version
    grow(pause=0)
    assert store.run("run-1").version != version
    assert shown.run("run-1").version == version
    assert shown.series("run-1", names, points=1000) is curve


def test_a_map_that_is_followed_is_the_map_that_is_made_anew(followed):
    """Of a sick run; levels may differ by what they settled since they were taken, so that pale cells may."""
    store, shown, grow = followed
    for _ in range(20):
        grow()
        run = store.run("run-1")
        kept = livemap.picture(shown, run, "vitals", None, None)
        whole = livemap.picture(store_again(store), run, "vitals", None, None)
        assert [line.name for line in kept.lines] == [line.name for line in whole.lines]
        assert kept.edges.tolist() == whole.edges.tolist()
        apart = np.abs(kept.codes.astype(int) - whole.codes.astype(int))
        assert apart.max() <= 10, "a tenth of the scale"
        special = (kept.codes <= -127) | (kept.codes >= 126)
        assert np.array_equal(special, (whole.codes <= -127) | (whole.codes >= 126))


def store_again(store):
    """The store under another identity, for which nothing is remembered."""
    return frames.framed(store)


def test_what_is_made_of_a_run_is_made_once_for_each_version(followed):
    store, _, grow = followed
    grow(2)
    kept, made = memory.Memory(10), []
    run = store.run("run-1")

    def make():
        made.append(1)
        return len(made)

    ready = threading.Barrier(8)

    def ask():
        ready.wait()
        kept.get(store, run, "charts", make)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.get(store, run, "charts", make) == 1
    grow()
    assert kept.get(store, store.run("run-1"), "charts", make) == 2
    assert kept.get(store, run, "other", make) == 3


def test_pages_of_a_run_are_told_to_ask_at_the_same_moment():
    asked = [1_000.0, 1_000.04, 1_000.45, 1_000.8]
    moments = {(int(now * 1e3) + live.again_ms("run-1", now)) % live.EVERY_MS for now in asked}
    assert len(moments) == 1
    assert all(
        live.SOONEST_MS <= live.again_ms("run-1", now) < live.SOONEST_MS + live.EVERY_MS
        for now in asked
    )
    assert len({live.again_ms(f"run-{number}", 1e3) for number in range(20)}) > 10


def test_pages_of_different_runs_ask_far_from_each_other_also_when_runs_come_and_go():
    moments = live._Moments()
    for number in range(40):  # of which ten at a time are followed
        now = 1e3 + 4.0 * number
        followed = [f"run-{n}" for n in range(max(number - 9, 0), number + 1)]
        at = sorted(moments.of(run, now) for run in followed)
        assert at == sorted(moments.of(run, now + 1) for run in followed)
        gaps = np.diff([*at, at[0] + live.EVERY_MS])
        assert gaps.min() >= live.EVERY_MS / 3 / len(followed)


def test_pages_that_know_the_same_get_an_answer_that_is_made_once(client, send, clock, monkeypatch):
    send(count=12)
    first = client.get("/api/v1/runs/run-1/live?charts=run&map=").json
    send(first=12, count=3)
    clock.now += frames.FRAME_S
    made, make = [], live._answer
    monkeypatch.setattr(live, "_answer", lambda *given: made.append(1) or make(*given))
    address = f"/api/v1/runs/run-1/live?version={first['version']}&charts=run&map={first['map'].get('token', '')}"
    answers = [client.get(address).json for _ in range(3)]
    assert len(made) == 1
    assert all(answer.pop("again_ms") >= live.SOONEST_MS for answer in answers)
    assert answers[0]["changed"]
    assert answers[0]["last_step"] > first["last_step"]
    assert answers == [answers[0]] * 3
    assert client.get(address + "&known=loss~x").json["version"] == answers[0]["version"]
    assert len(made) == 2


def test_texts_that_a_page_has_do_not_come_again(client, send, clock):
    send(count=12)
    first = client.get("/api/v1/runs/run-1/live").json
    assert {"verdict", "findings", "checked"} <= first.keys()
    send(first=12, count=3)
    clock.now += frames.FRAME_S
    known = "&".join(f"known={name}~{token}" for name, token in first["texts"].items())
    news = client.get(f"/api/v1/runs/run-1/live?version={first['version']}&{known}").json
    assert news["changed"]
    assert "findings" not in news
    assert "checked" not in news
    assert "verdict" in news  # it tells the step
