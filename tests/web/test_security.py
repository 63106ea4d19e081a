"""Hosts, tokens, cookies, cross-site requests, headers."""

import re

import pytest

from trainvitals.hooks.wire.codec import encode_batch

BATCH = "application/vnd.trainvitals.batch"
CHANGE = {"X-Trainvitals": "1"}


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:7070", "127.0.0.1:7070", "[::1]:7070", "LOCALHOST", "localhost."],
)
def test_the_names_of_this_machine_are_answered(anyone, host):
    assert anyone.get("/api/v1/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7070", "127.0.0.1.evil.example", "localhost.evil.example"),
        *(
            "10.0.0.7",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost/x",
            "localhost?",
        ),
        *("localhost:port", "localhost:99999", "[::1", "]", "", " ", "local host", "\xff"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("path", ["/", "/api/v1/runs", "/nope", "/static/x.js"])
def test_another_host_name_is_refused(anyone, host, path):
    reply = anyone.get(path, headers={"Host": host})
    assert reply.status_code == 400
    assert "Access-Control-Allow-Origin" not in reply.headers


def test_a_host_name_can_be_allowed(make_app):
    client = make_app(allowed_hosts=("gpu-box",), base_url="https://vitals.example").test_client()
    for host, status in (("gpu-box:7070", 200), ("vitals.example", 200), ("other.example", 400)):
        assert client.get("/api/v1/runs", headers={"Host": host}).status_code == status


def test_a_server_bound_to_every_address_answers_to_addresses_but_not_to_names(make_app):
    client = make_app(host="0.0.0.0", token="t").test_client()
    for host, status in (("10.0.0.7:7070", 200), ("[fe80::1]:7070", 200), ("evil.example", 400)):
        assert client.get("/api/v1/runs", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/runs", "/api/v1/nope", "/nope", "/healthz", "/login"]
)
def test_every_answer_carries_the_security_headers(anyone, path):
    headers = anyone.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert re.search(r"script-src 'self'(;|$)", policy)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_changing_something_needs_the_header_that_a_form_can_not_send(client, send):
    send()
    reply = client.delete("/api/v1/runs/run-1")
    assert reply.status_code == 403
    assert "X-Trainvitals" in reply.json["error"]["message"]
    assert client.get("/api/v1/runs/run-1").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_another_site_changes_nothing(client, send, batch, headers):
    send()
    assert client.delete("/api/v1/runs/run-1", headers=CHANGE | headers).status_code == 403
    body = encode_batch(batch(first=12, count=2))
    reply = client.post(
        "/api/v1/runs/run-1/batches", data=body, content_type=BATCH, headers=headers
    )
    assert reply.status_code == 403
    assert client.get("/api/v1/runs/run-1").json["last_step"] == 9


def test_the_own_pages_may_change_things(client, send):
    send()
    headers = CHANGE | {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client.delete("/api/v1/runs/run-1", headers=headers).status_code == 200


def test_reading_is_open_without_a_read_token(make_app):
    assert make_app(token="writes").test_client().get("/api/v1/runs").status_code == 200


def test_reading_needs_the_read_token_when_there_is_one(make_app):
    client = make_app(token="writes", read_token="reads").test_client()
    reply = client.get("/api/v1/runs")
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    for token, status in (("reads", 200), ("writes", 200), ("wrong", 401), ("", 401)):
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/api/v1/runs", headers=headers).status_code == status


def test_health_and_version_need_no_token(make_app):
    client = make_app(read_token="reads").test_client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/version").status_code == 200


def test_a_page_without_its_token_is_the_login_form(make_app):
    client = make_app(read_token="reads").test_client()
    reply = client.get("/runs/run-1?tab=vitals")
    assert reply.status_code == 401
    assert "<form" in reply.text
    assert 'value="/runs/run-1?tab=vitals"' in reply.text


def test_logging_in_sets_a_cookie_that_scripts_and_other_sites_do_not_get(make_app):
    client = make_app(read_token="reads").test_client()
    reply = client.post("/login", data={"token": "reads", "next": "/runs/run-1"})
    assert reply.status_code == 303
    assert reply.headers["Location"] == "/runs/run-1"
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert "reads" not in cookie
    assert client.get("/api/v1/runs").status_code == 200


def test_a_wrong_token_does_not_log_in(make_app):
    client = make_app(read_token="reads").test_client()
    reply = client.post("/login", data={"token": "guess"})
    assert reply.status_code == 401
    assert "Set-Cookie" not in reply.headers
    assert "guess" not in reply.text


def test_a_reader_can_not_delete_and_a_writer_can(make_app, send):
    send()
    app = make_app(token="writes", read_token="reads")
    for token, status in (("reads", 401), ("writes", 200)):
        client = app.test_client()
        client.post("/login", data={"token": token})
        assert client.delete("/api/v1/runs/run-1", headers=CHANGE).status_code == status


def test_a_forged_or_foreign_cookie_is_worth_nothing(make_app):
    other = make_app(read_token="another").test_client()
    other.post("/login", data={"token": "another"})
    cookie = other.get_cookie("trainvitals").value
    client = make_app(read_token="reads").test_client()
    for value in (cookie, cookie + "x", "", '"write"', "write", "x" * 3000):
        client.set_cookie("trainvitals", value)
        assert client.get("/api/v1/runs").status_code == 401


@pytest.mark.parametrize(
    "goal",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:1", "", "/a\nb"],
)
def test_logging_in_never_leads_to_another_site(make_app, goal):
    client = make_app(read_token="reads").test_client()
    reply = client.post("/login", data={"token": "reads", "next": goal})
    assert reply.headers["Location"] == "/"


def test_another_site_can_not_log_in(make_app):
    client = make_app(read_token="reads").test_client()
    reply = client.post(
        "/login", data={"token": "reads"}, headers={"Origin": "http://evil.example"}
    )
    assert reply.status_code == 403


def test_secrets_are_in_no_answer(make_app):
    secrets = {
        "token": "tok-1",
        "slack_webhook": "https://hooks.slack.com/services/T/B/xyz-2",
        "webhook_url": "https://receiver.example/xyz-3",
        "webhook_secret": "key-4",
    }
    app = make_app(**secrets)
    client = app.test_client()
    for path in ("/", "/alerts", "/api/v1/runs", "/api/v1/alerts", "/nope", "/version", "/login"):
        text = client.get(path).text
        assert not any(secret in text for secret in ("tok-1", "xyz-2", "xyz-3", "key-4"))
    assert not any(secret in repr(app.config["SETTINGS"]) for secret in secrets.values())


def test_a_large_form_is_refused(make_app):
    client = make_app(read_token="reads").test_client()
    assert client.post("/login", data={"token": "x" * (1 << 20)}).status_code == 413
