"""The channels on pages and by the API: tried, previewed, and never given away."""

import http.server
import json
import threading

import pytest

CSRF = {"X-Trainvitals": "1"}
SECRET = "T000-s3cret"


@pytest.fixture
def receiver():
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    server.got = got
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(make_app, receiver, tmp_path, fill, made_run):
    fill(tmp_path / "trainvitals.db", made_run("sick", steps=400, sick=True).end("failed"))
    address = f"http://127.0.0.1:{receiver.server_address[1]}/{SECRET}"
    return make_app(slack_webhook=address, webhook_secret="hmac-key").test_client()


def test_a_test_message_goes_out_and_its_fate_is_told(site, receiver):
    answer = site.post("/api/v1/channels/slack/test", headers=CSRF)
    assert answer.json == {"ok": True, "message": "delivered"}
    assert "This is a test" in receiver.got[0]["text"]
    assert site.post("/api/v1/channels/email/test", headers=CSRF).status_code == 404
    assert site.post("/api/v1/channels/slack/test").status_code == 403


def test_a_channel_that_fails_says_why_without_its_address(make_app):
    client = make_app(slack_webhook=f"http://127.0.0.1:9/{SECRET}").test_client()
    answer = client.post("/api/v1/channels/slack/test", headers=CSRF)
    assert answer.json["ok"] is False
    assert SECRET not in answer.get_data(as_text=True)


def test_a_preview_is_what_would_be_sent(site):
    findings = site.get("/api/v1/runs/sick/findings").json["findings"]
    root = next(item for item in findings if item["root"])
    payload = site.get(f"/api/v1/findings/{root['id']}/preview/slack").json["payload"]
    told = json.dumps(payload)
    assert root["title"] in told
    assert "Acknowledge or mute" in told
    follower = next(item for item in findings if not item["root"])
    assert site.get(f"/api/v1/findings/{follower['id']}/preview/slack").status_code == 409


@pytest.mark.parametrize("path", ["/alerts", "/settings", "/api/v1/channels"])
def test_no_page_shows_a_secret(site, path):
    page = site.get(path).get_data(as_text=True)
    assert "127.0.0.1" in page
    assert SECRET not in page
    assert "hmac-key" not in page


def test_the_settings_tell_whether_tokens_are_set_and_never_which(make_app):
    client = make_app(token="wr1te-t0ken", read_token="re4d-t0ken").test_client()
    page = client.get("/settings", headers={"Authorization": "Bearer re4d-t0ken"}).get_data(
        as_text=True
    )
    assert "TRAINVITALS_TOKEN" in page
    assert "may read;" in page
    assert "t0ken" not in page
