"""Acknowledge and mute by the API."""

import time

import msgspec
import pytest

from trainvitals.app.store import Store

CSRF = {"X-Trainvitals": "1"}


@pytest.fixture
def site(make_app, tmp_path, fill, made_run):
    fill(tmp_path / "trainvitals.db", made_run("sick", steps=400, sick=True).end("failed"))
    return make_app().test_client()


@pytest.fixture
def root(site):
    findings = site.get("/api/v1/runs/sick/findings").json["findings"]
    return next(item for item in findings if item["root"])


def post(site, finding, what, body=None, headers=CSRF):
    return site.post(f"/api/v1/findings/{finding}/{what}", json=body, headers=headers)


def test_a_finding_is_acknowledged_and_taken_back(site, root):
    assert root["acknowledged"] is None
    answer = post(site, root["id"], "acknowledge")
    assert answer.status_code == 200
    assert answer.json["acknowledged"].startswith("20")
    assert site.get(f"/api/v1/findings/{root['id']}").json == answer.json
    assert post(site, root["id"], "unacknowledge").json["acknowledged"] is None


@pytest.mark.parametrize("form", ["text", "seconds"])
def test_a_finding_is_muted_until_a_time_and_unmuted(site, root, form, tmp_path):
    seconds = int(time.time()) + 3600
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    answer = post(site, root["id"], "mute", {"until": text if form == "text" else seconds})
    assert answer.json["muted_until"] == text.replace("Z", ".000Z")
    with Store.open(tmp_path / "trainvitals.db") as store:
        assert store.handling("sick")[root["key"]].muted_until == seconds
    assert post(site, root["id"], "unmute").json["muted_until"] is None


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [],
        {"until": "soon"},
        {"until": "2001-01-01T00:00:00Z"},
        {"until": 1e300},
        {"until": "9999-12-31T23:59:59Z"},
        {"until": {"a": 1}},
        {"until": None},
    ],
)
def test_a_time_that_makes_no_sense_is_refused_with_what_is_expected(site, root, body):
    answer = post(site, root["id"], "mute", body)
    assert answer.status_code == 400
    assert "until" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "wanted", ["sick.000000000000", "none.f7db38bd0bf2", "sick", "..", "x" * 500]
)
def test_a_finding_that_is_not_there_is_a_404(site, wanted):
    assert post(site, wanted, "acknowledge").status_code == 404


def test_nothing_is_changed_for_another_site_or_a_reader(site, root, make_app):
    assert post(site, root["id"], "acknowledge", headers={}).status_code == 403
    evil = {**CSRF, "Origin": "http://evil.example"}
    assert post(site, root["id"], "acknowledge", headers=evil).status_code == 403
    guarded = make_app(token="writes").test_client()
    assert post(guarded, root["id"], "acknowledge").status_code == 401
    assert site.get(f"/api/v1/findings/{root['id']}").json["acknowledged"] is None


def test_what_the_policy_acknowledges_waits_for_nobody_and_says_until_when(site, tmp_path):
    assert "1 waits for someone" in site.get("/alerts").text
    with Store.open(tmp_path / "trainvitals.db") as store:
        with store._database.write() as connection:
            connection.execute("UPDATE streams SET read = 0")
        known = [
            msgspec.structs.replace(f, acknowledged="2099-12-31") for f in store.findings("sick")
        ]
        assert store.claim("me", 30, 2e9) == ["sick"]
        before = store.evaluation("sick")
        store.commit_evaluation("sick", "me", before.cursor, before.state, known, [], 2e9)
    page = site.get("/alerts").text
    assert "Nothing waits for anyone" in page
    assert "by the policy until 2099-12-31" in page
    told = site.get("/api/v1/runs/sick/findings").json["findings"]
    assert {(f["acknowledged"], f["acknowledged_until"]) for f in told} == {(None, "2099-12-31")}
    assert "acknowledged until 2099-12-31" in site.get("/runs/sick").text
