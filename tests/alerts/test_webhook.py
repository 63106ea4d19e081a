"""The generic webhook: Alertmanager's shape, signed."""

import hashlib
import hmac
import json

import pytest

from trainvitals.app.alerts.base import ChannelError
from trainvitals.app.alerts.webhook import Webhook

# Fields of Alertmanager's webhook, version 4 (prometheus.io/docs/alerting/latest/configuration).
MESSAGE = {
    *("version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels"),
    *("commonLabels", "commonAnnotations", "externalURL", "alerts"),
}
ENTRY = {
    *("status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"),
}


def test_the_shape_is_alertmanagers(alert):
    payload = Webhook("https://x").payload(alert())
    assert set(payload) == MESSAGE
    assert payload["version"] == "4"
    assert payload["status"] == "firing"
    (entry,) = payload["alerts"]
    assert set(entry) == ENTRY
    assert entry["labels"]["alertname"] == "dead_units"
    assert entry["labels"]["severity"] == "critical"
    assert entry["startsAt"] == "2001-09-09T01:46:40.000Z"
    assert entry["endsAt"] == "0001-01-01T00:00:00Z"
    labels = [*entry["labels"].values(), *entry["annotations"].values()]
    assert all(isinstance(value, str) for value in labels)


def test_a_resolve_has_the_fingerprint_of_its_opening_and_an_end(alert):
    opened = Webhook("https://x").payload(alert())["alerts"][0]
    closed = Webhook("https://x").payload(alert(kind="resolved", over=True, time=1e9 + 60))
    assert closed["status"] == "resolved"
    entry = closed["alerts"][0]
    assert entry["fingerprint"] == opened["fingerprint"]
    assert entry["startsAt"] == opened["startsAt"]
    assert entry["endsAt"] == "2001-09-09T01:47:40.000Z"


def test_the_signature_covers_time_and_body(alert, receiver):
    Webhook(receiver.url, "key").send(alert())
    ((_, headers, body),) = receiver.got
    fields = dict(part.split("=", 1) for part in headers["X-Trainvitals-Signature"].split(","))
    expected = hmac.new(b"key", fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert fields["v1"] == expected
    assert json.loads(body)["groupKey"] == "run-1/dead_units:fc1"


def test_the_id_of_the_alert_is_the_idempotency_key(alert, receiver):
    for _ in range(2):
        Webhook(receiver.url).send(alert())
    keys = [headers["Idempotency-Key"] for _, headers, _ in receiver.got]
    assert keys == ["run-1/dead_units:fc1/100/open"] * 2
    assert "X-Trainvitals-Signature" not in receiver.got[0][1]


def test_an_id_that_headers_can_not_carry_is_escaped(alert, receiver):
    Webhook(receiver.url).send(alert(id="run-1/schicht·1\r\nX-Evil: 1/0/open"))
    ((_, headers, _),) = receiver.got
    assert headers["Idempotency-Key"].isascii()
    assert "X-Evil" not in headers


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, True), (400, True), (404, True), (408, False), (429, False), (500, False)],
)
def test_an_answer_tells_whether_trying_again_can_help(alert, receiver, status, permanent):
    receiver.status = status
    receiver.headers = {"Location": f"{receiver.url}/elsewhere"}
    with pytest.raises(ChannelError) as caught:
        Webhook(f"{receiver.url}/secret", "key").send(alert())
    assert caught.value.permanent is permanent
    assert "secret" not in str(caught.value)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_is_a_delivery(alert, receiver, status):
    receiver.status = status
    Webhook(receiver.url).send(alert())
    assert len(receiver.got) == 1
