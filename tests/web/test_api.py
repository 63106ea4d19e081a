"""The JSON API."""

import json
import math
import time

import pytest

from trainvitals.app.store import Store
from trainvitals.app.store.types import AlertRow
from trainvitals.hooks.wire.codec import encode_batch
from trainvitals.hooks.wire.records import Event, Step

BATCH = "application/vnd.trainvitals.batch"


@pytest.fixture(scope="module")
def one_run(open_app, tmp_path_factory, batch):
    """A client of an app with a run."""
    client = open_app(tmp_path_factory.mktemp("one") / "trainvitals.db").test_client()
    body = encode_batch(batch())
    client.post("/api/v1/runs/run-1/batches", data=body, content_type=BATCH)
    return client


def strict(reply):
    """The JSON of a reply, refusing what JSON does not know."""

    def refuse(word):
        raise AssertionError(f"bare {word} in JSON")

    assert reply.status_code == 200, reply.text
    assert reply.mimetype == "application/json"
    return json.loads(reply.data, parse_constant=refuse)


def test_there_are_no_runs_at_first(client):
    assert strict(client.get("/api/v1/runs")) == {"runs": []}


def test_a_run_is_listed_with_its_state(client, send):
    send(count=12)
    (run,) = strict(client.get("/api/v1/runs"))["runs"]
    assert run["id"] == "run-1"
    assert (run["project"], run["name"], run["status"]) == ("digits", "a name", "running")
    assert run["last_step"] == 9
    assert run["created"].endswith("Z")
    assert run["open_findings"] == {}


def test_a_finished_run_says_so(client, send):
    send(count=12, end="finished")
    assert strict(client.get("/api/v1/runs/run-1"))["status"] == "finished"


def test_a_silent_run_has_lost_contact(client, send, monkeypatch):
    send(count=12)
    later = time.time() + 16
    monkeypatch.setattr(time, "time", lambda: later)
    assert strict(client.get("/api/v1/runs/run-1"))["status"] == "lost contact"


def test_a_run_tells_its_layers_and_metrics(client, send):
    send()
    run = strict(client.get("/api/v1/runs/run-1"))
    assert run["config"] == {"lr": 1e-3}
    assert run["scalars"] == ["loss"]
    assert [row["name"] for row in run["groups"][0]["rows"]] == ["fc1", "fc2"]


def test_a_series_is_told_step_by_step(client, send):
    send(count=12)
    series = strict(client.get("/api/v1/runs/run-1/series?names=loss"))["series"]["loss"]
    assert series["steps"] == list(range(10))
    assert series["mean"] == pytest.approx([1 / seq for seq in range(2, 12)])
    assert series["nonfinite"] == [0] * 10


def test_a_range_of_a_series_leaves_out_its_stop(client, send):
    send(count=12)
    reply = client.get("/api/v1/runs/run-1/series?names=loss&start=3&stop=6")
    assert strict(reply)["series"]["loss"]["steps"] == [3, 4, 5]


def test_nan_and_infinity_are_null_and_counted(client, send):
    send(count=12)
    values = [math.nan, math.inf, 0.5]
    send(
        first=12,
        records=[
            Step(seq=12 + n, time=1e9, step=10 + n, scalars={"loss": value})
            for n, value in enumerate(values)
        ],
    )
    series = strict(client.get("/api/v1/runs/run-1/series?names=loss&start=10"))["series"]["loss"]
    assert series["mean"] == [None, None, 0.5]
    assert series["nonfinite"] == [1, 1, 0]


def test_a_matrix_has_a_row_for_each_layer(client, send):
    send(count=12)
    matrix = strict(client.get("/api/v1/runs/run-1/matrix?kind=activation&statistic=std"))
    assert matrix["rows"] == ["fc1", "fc2"]
    assert matrix["steps"] == list(range(10))
    assert matrix["mean"] == [[float(seq) for seq in range(2, 12)]] * 2


def test_a_statistic_that_was_never_recorded_is_an_empty_matrix_or_a_clear_error(client, send):
    send(count=12)
    reply = client.get("/api/v1/runs/run-1/matrix?kind=parameter&statistic=update_ratio")
    assert strict(reply)["rows"] == []


def test_events_tell_non_finite_values_in_words(client, send):
    send(count=12)
    event = Event(
        seq=12, time=1e9, step=10, kind="nonfinite", layer="fc1", data={"max": math.inf, "n": 3}
    )
    send(first=12, records=[event])
    (told,) = strict(client.get("/api/v1/runs/run-1/events"))["events"]
    assert told["data"] == {"max": "inf", "n": 3}
    assert told["layer"] == "fc1"
    assert told["step"] == 10


def test_a_run_without_evaluation_has_no_findings_but_rule_states(client, send):
    send()
    assert strict(client.get("/api/v1/runs/run-1/findings")) == {"findings": []}
    states = strict(client.get("/api/v1/runs/run-1/states"))["states"]
    assert {state["state"] for state in states} <= {"not enough data", "not applicable"}


def test_a_run_is_judged_once_the_rules_have_seen_its_records(client, send, make_app):
    send()
    assert strict(client.get("/api/v1/runs/run-1"))["judged"] is False
    with Store.open(make_app().config["SETTINGS"].database) as store:
        now = time.time()
        assert store.claim("me", 60.0, now) == ["run-1"]
        store.commit_evaluation("run-1", "me", {"a1/0": 12}, None, [], [], now)
    assert strict(client.get("/api/v1/runs/run-1"))["judged"] is True


def test_the_delivery_log_is_empty_at_first(client):
    assert strict(client.get("/api/v1/alerts")) == {"deliveries": []}


def test_a_delivery_is_logged_with_its_times(client, send, make_app):
    send()
    row = AlertRow(
        id="run-1/nan/5/open", run="run-1", group="nan", kind="open", created=1e9, not_before=1e9
    )
    with Store.open(make_app().config["SETTINGS"].database) as store:
        store.claim("me", 60.0, time.time())
        store.commit_evaluation("run-1", "me", {}, None, [], [row], time.time())
        assert store.take_alert("slack", 1e9).row == row
        store.mark_failed(row.id, "slack", 1e9 + 1, "No answer.", 1e9 + 6)
    (told,) = strict(client.get("/api/v1/alerts?run=run-1"))["deliveries"]
    assert (told["channel"], told["state"], told["error"]) == ("slack", "pending", "No answer.")
    assert told["created"] == "2001-09-09T01:46:40.000Z"
    assert told["retry_at"] == "2001-09-09T01:46:46.000Z"


def test_a_deleted_run_is_gone(client, send):
    send()
    reply = client.delete("/api/v1/runs/run-1", headers={"X-Trainvitals": "1"})
    assert strict(reply) == {"deleted": "run-1"}
    assert client.get("/api/v1/runs/run-1").status_code == 404
    assert strict(client.get("/api/v1/runs")) == {"runs": []}


def test_health_and_version(client):
    assert strict(client.get("/healthz")) == {"status": "ok"}
    assert strict(client.get("/version"))["wire"] == 2


@pytest.mark.parametrize("run", ["nope", "..", "%00", "a b", "x" * 100, "<script>"])
@pytest.mark.parametrize("tail", ["", "/findings", "/states", "/events", "/series?names=loss"])
def test_a_run_that_is_not_there_is_a_404(anyone, run, tail):
    reply = anyone.get(f"/api/v1/runs/{run}{tail}")
    assert reply.status_code == 404
    assert reply.json["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "series?names=loss&points=0",
        "series?names=loss&points=-1",
        "series?names=loss&points=nan",
        "series?names=loss&points=1e3",
        "series?names=loss&points=99999999",
        "series?names=loss&points=" + "9" * 5000,
        "series?names=loss&start=x",
        "series?names=loss&start=-1",
        "series?names=loss&start=1.5",
        "series?names=loss&start=1_0",
        "series?names=loss&start=%D9%A3",
        "series?names=loss&stop=9007199254740993",
        "series?names=loss&start=5&stop=5",
        "series?names=loss&start=5&stop=2",
        "series",
        "series?names=",
        "series?names=" + ",".join(f"m{n}" for n in range(51)),
        "matrix",
        "matrix?kind=activation",
        "matrix?kind=nope&statistic=std",
        "matrix?kind=activation&statistic=nope",
        "matrix?kind=activation&statistic=std&buckets=0",
        "matrix?kind=activation&statistic=std&buckets=100000",
        "events?limit=0",
        "events?limit=a",
    ],
    ids=lambda query: query[:60],
)
def test_a_wrong_query_is_a_400_that_names_the_parameter(one_run, query):
    reply = one_run.get(f"/api/v1/runs/run-1/{query}")
    assert reply.status_code == 400, reply.text
    message = reply.json["error"]["message"]
    assert "expected" in message
    assert len(message) < 2000


def test_a_metric_that_is_not_there_is_named_with_those_that_are(client, send):
    send()
    reply = client.get("/api/v1/runs/run-1/series?names=lost")
    assert reply.status_code == 404
    assert "loss" in reply.json["error"]["message"]


def test_an_unknown_address_is_json_under_api_and_a_page_elsewhere(client):
    assert client.get("/api/v1/nope").json["error"]["code"] == "not_found"
    page = client.get("/nope")
    assert page.status_code == 404
    assert page.mimetype == "text/html"
