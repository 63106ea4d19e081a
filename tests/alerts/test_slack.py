"""Block Kit messages and Slack's answers."""

import json
import socket

import pytest

from trainvitals.app.alerts.base import ChannelError
from trainvitals.app.alerts.slack import Slack, fit


def texts(payload):
    """Every text object of a message with its own kind of limit."""
    for block in payload["blocks"]:
        for item in (block.get("text"), *block.get("elements", [])):
            if isinstance(item, dict):
                yield (
                    block["type"],
                    item["text"]["text"] if item["type"] == "button" else item["text"],
                )


def shown(payload):
    return "\n".join(text for _, text in texts(payload))


def test_a_message_says_what_where_since_when_and_what_to_do(alert):
    payload = Slack("https://x").payload(
        alert(consequences=["loss is NaN (from step 101)"], layers="fc1 … fc48, 48 layers")
    )
    header = payload["blocks"][0]["text"]
    assert header["type"] == "plain_text"
    assert header["text"] == "🔴 digits: 90 % of the units of fc1 are dead"
    text = shown(payload)
    for part in (
        *("Since step 100", "0.9", "at most 0.5", "Lower the learning rate."),
        *("loss is NaN (from step 101)", "fc1 … fc48, 48 layers", "rule dead_units", "run-1"),
    ):
        assert part in text
    button = payload["blocks"][-1]["elements"][0]
    assert button["url"] == "http://127.0.0.1:7070/runs/run-1"


def test_severity_and_kind_show_in_the_header(alert):
    def header(**changes):
        return Slack("https://x").payload(alert(**changes))["blocks"][0]["text"]["text"]

    assert header(severity="warning").startswith("🟠 digits")
    assert header(kind="escalated").startswith("🔴 Worse: digits")
    assert header(kind="resolved", over=True).startswith("✅ Resolved: digits")


def test_a_resolved_message_says_how_long_it_held_and_gives_no_advice(alert):
    text = shown(Slack("https://x").payload(alert(kind="resolved", over=True)))
    assert "Held from step 100 to 120" in text
    assert "Do this" not in text


def test_names_from_a_training_can_not_become_markup(alert):
    hostile = "<!channel> <https://evil.example|click> & `code` *bold*"
    payload = Slack("https://x").payload(
        alert(title=hostile, run_name=hostile, layers=hostile, seen=hostile, consequences=[hostile])
    )
    text = shown(payload) + payload["text"]
    assert "<" not in text and ">" not in text
    assert "&lt;!channel&gt;" in text
    assert "`" not in "".join(text for kind, text in texts(payload) if kind == "section")


def test_the_longest_alert_stays_within_every_limit(alert):
    long = "&<>é" * 5000
    payload = Slack("https://x").payload(
        alert(
            title=long,
            run_name=long,
            project=long,
            layers=long,
            seen=long,
            expected=long,
            remedy=long,
            diff=long,
            consequences=[long] * 8,
            more_consequences=40,
        )
    )
    limits = {"header": 150, "section": 3000, "context": 3000, "actions": 75}
    for kind, text in texts(payload):
        assert len(text) <= limits[kind]
    assert len(payload["blocks"]) <= 50
    assert sum(len(text) for _, text in texts(payload)) < 13_200


@pytest.mark.parametrize("limit", range(1, 30))
def test_cutting_never_splits_an_escape(limit):
    text = fit("a&b<c>d&&&&&&&&", limit)
    assert len(text) <= limit or limit < 1
    rest = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert "&" not in rest


def test_a_message_is_posted_as_json(alert, receiver):
    slack = Slack(f"{receiver.url}/services/T/B/x")
    slack.send(alert())
    ((path, headers, body),) = receiver.got
    assert path == "/services/T/B/x"
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body) == slack.payload(alert())


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(400, True), (403, True), (404, True), (410, True), (302, True), (500, False), (503, False)],
)
def test_an_answer_tells_whether_trying_again_can_help(alert, receiver, status, permanent):
    receiver.status = status
    receiver.headers = {"Location": f"{receiver.url}/elsewhere"}
    with pytest.raises(ChannelError) as caught:
        Slack(f"{receiver.url}/secret").send(alert())
    assert caught.value.permanent is permanent
    assert "secret" not in str(caught.value)
    assert len(receiver.got) == 1  # no redirect was followed


def test_slack_may_ask_to_wait(alert, receiver):
    receiver.status = 429
    receiver.headers = {"Retry-After": "17"}
    with pytest.raises(ChannelError) as caught:
        Slack(receiver.url).send(alert())
    assert caught.value.retry_after == 17.0
    assert not caught.value.permanent


def test_no_connection_is_worth_another_try_and_names_no_address(alert):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/secret"
        with pytest.raises(ChannelError) as caught:
            Slack(url).send(alert())
    assert not caught.value.permanent
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
