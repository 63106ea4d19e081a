"""Open pages that ask the same get one answer; nobody gets what another one may see."""

import threading

import pytest
from flask import Flask, Response

from trainvitals.app.store import Store
from trainvitals.app.web import frames, sharing


@pytest.fixture
def asked(clock):
    """Ask a question that takes `cost` seconds to answer; answers count up."""
    answers, made, context = sharing.Answers(), [], Flask("test")

    def ask(key="all", cost=0.1, status=200):
        def make():
            clock.now += cost
            made.append(key)
            return Response(str(len(made)), status=status)

        with context.test_request_context("/"):
            return answers.respond((key,), make).get_data(as_text=True)

    ask.made = made
    return ask


def test_an_answer_is_given_again_for_a_moment_in_proportion_to_its_cost(asked, clock):
    assert [asked(cost=0.01) for _ in range(3)] == ["1", "1", "1"]
    clock.now += sharing.AGAIN * 0.01
    assert asked(cost=0.01) == "2"


def test_no_answer_is_given_for_longer_than_the_limit(asked, clock):
    assert asked(cost=5.0) == "1"
    assert asked(cost=5.0) == "2"  # it was older than the limit when it was made


def test_other_questions_and_failures_are_not_mixed_up(asked):
    assert [asked("a"), asked("b"), asked("a")] == ["1", "2", "1"]
    assert [asked("c", status=404), asked("c", status=404)] == ["3", "4"]


def test_the_oldest_answers_go_when_there_are_too_many(asked, monkeypatch):
    monkeypatch.setattr(sharing, "MAX_ANSWERS", 2)
    assert [asked(key, cost=0.01) for key in "abca"] == ["1", "2", "3", "4"]
    assert asked("c", cost=0.01) == "3"


def test_who_asks_while_an_answer_is_made_gets_the_last_one(clock):
    answers, context = sharing.Answers(), Flask("test")
    started, go_on = threading.Event(), threading.Event()

    def ask(make):
        with context.test_request_context("/"):
            return answers.respond(("k",), make).get_data(as_text=True)

    def slow():
        started.set()
        assert go_on.wait(10)
        return Response("new")

    assert ask(lambda: Response("old")) == "old"  # it took no time, so that it is never given again
    thread = threading.Thread(target=ask, args=(slow,))
    thread.start()
    assert started.wait(10)
    assert ask(slow) == "old"
    go_on.set()
    thread.join()


def test_unchanged_answers_travel_without_their_body(client, send):
    send()
    first = client.get("/api/v1/runs/run-1/figures/loss")
    again = client.get(
        "/api/v1/runs/run-1/figures/loss", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (first.status_code, again.status_code, again.data) == (200, 304, b"")


def test_an_answer_for_one_token_is_not_given_to_another(make_app, batch):
    app = make_app(token="writes", read_token="reads")
    path = "/api/v1/runs/run-1/live"
    good = {"Authorization": "Bearer writes"}
    assert app.test_client().get(path, headers=good).status_code == 404
    assert app.test_client().get(path).status_code == 401
    assert app.test_client().get("/", headers=good).status_code == 200
    assert app.test_client().get("/").status_code == 401


def test_a_program_sees_at_once_what_it_has_sent(client, send):
    for count in (5, 9, 12):
        send(count=count)
        assert client.get("/api/v1/runs/run-1").json["last_step"] == count - 3
        series = client.get("/api/v1/runs/run-1/series?names=loss").json["series"]["loss"]
        assert series["steps"] == list(range(count - 2))


def test_a_run_stays_the_same_within_a_frame_and_is_new_after_it(clock, tmp_path, batch):
    with Store.open(tmp_path / "t.db") as store:
        shown = frames.framed(store)
        store.append(batch(count=5), 1e9)
        assert shown.run("run-1").last_step == 2
        store.append(batch(count=9), 1e9)
        assert shown.run("run-1").last_step == 2
        assert len(shown.series("run-1", ["loss"])["loss"].steps) == 7  # first read in this frame
        clock.now += frames.FRAME_S
        assert shown.run("run-1").last_step == 6
        assert len(shown.runs()) == 1  # what is about no run is as in the store
