"""The list of runs as data."""

import json
import time

import pytest

from trainvitals.app.store import Store

CSRF = {"X-Trainvitals": "1"}


@pytest.fixture(scope="module")
def now():
    """When the tests began: with it their runs are the same for all of them."""
    return time.time()


@pytest.fixture
def site(make_app, tmp_path, fill, made_run, now):
    fill(
        tmp_path / "trainvitals.db",
        made_run("healthy", steps=300, name="steady", start=now - 900).end(),
        made_run("sick", steps=400, sick=True, start=now - 800).end("failed"),
    )
    return make_app().test_client()


def overview(site, since=0):
    return site.get(f"/api/v1/overview?since={since}").json


def test_a_card_tells_what_the_list_shows(site):
    answer = overview(site)
    assert (answer["total"], answer["complete"]) == (2, True)
    sick, healthy = answer["runs"]  # the newest first
    assert (sick["id"], sick["level"], sick["reported"]) == ("sick", "crit", "failed")
    assert sick["findings"]["critical"] >= 1
    assert sick["loss"] == "nan"
    assert "lr-too-high" in sick["rules"]
    assert (healthy["state"], healthy["step"], healthy["tags"]) == ("Healthy.", 299, ["resnet"])
    assert healthy["config"]["lr"] == 0.001
    assert 0.1 < healthy["metrics"]["val/accuracy"] <= 0.97
    assert healthy["rate"] == pytest.approx(1 / 0.032, rel=0.1)
    assert healthy["spark"]["path"].startswith("M")


def test_only_what_changed_comes_again(site, made_run, tmp_path, fill):
    first = overview(site)
    later = first["now"] + 3000  # past the overlap of two answers
    assert overview(site, later)["runs"] == []
    fill(tmp_path / "trainvitals.db", made_run("young", steps=5))
    again = overview(site, first["now"])
    assert "young" in [run["id"] for run in again["runs"]]
    assert again["total"] == 3


def test_a_heartbeat_is_news_of_when_a_run_was_heard_of(site, tmp_path, made_run):
    live = made_run("live", steps=5)
    with Store.open(tmp_path / "trainvitals.db") as store:
        for batch in live.batches():
            store.append(batch, time.time())
    assert overview(site)["heard"]["live"] == pytest.approx(time.time(), abs=60)


def test_cards_that_can_not_be_made_in_time_come_with_the_next_answer(site, monkeypatch):
    monkeypatch.setattr("trainvitals.app.web.overview.BUDGET_S", 0.0)
    first = overview(site)
    assert (len(first["runs"]), first["complete"]) == (1, False)
    second = overview(site)
    assert (len(second["runs"]), second["complete"]) == (2, True)


def test_a_card_of_a_deleted_run_is_gone(site):
    assert len(overview(site)["runs"]) == 2
    site.delete("/api/v1/runs/sick", headers=CSRF)
    answer = overview(site)
    assert [run["id"] for run in answer["runs"]] == ["healthy"]
    assert answer["total"] == 1


def change(site, method, path):
    assert site.open(f"/api/v1/runs/{path}", method=method, headers=CSRF).status_code == 200


def shelves(site):
    return {
        shelf: {
            run["id"]: run["state"]
            for run in site.get(f"/api/v1/overview?shelf={shelf}").json["runs"]
        }
        for shelf in ("active", "archived", "deleted")
    }


def test_each_shelf_has_its_own_cards(site):
    assert shelves(site)["active"] == {"healthy": "Healthy.", "sick": "Unhealthy."}
    change(site, "POST", "healthy/archive")
    change(site, "DELETE", "sick")
    assert shelves(site) == {
        "active": {},
        "archived": {"healthy": "Healthy."},
        "deleted": {"sick": "Unhealthy."},
    }
    change(site, "POST", "healthy/unarchive")
    change(site, "POST", "sick/restore")
    assert shelves(site)["active"] == {"healthy": "Healthy.", "sick": "Unhealthy."}


def test_a_run_that_was_deleted_before_anyone_saw_it_is_listed_without_a_verdict(site):
    change(site, "DELETE", "sick")
    assert shelves(site)["deleted"] == {"sick": "Deleted."}
    change(site, "POST", "sick/restore")
    assert shelves(site)["active"]["sick"] == "Unhealthy."


def test_an_unknown_shelf_is_a_400(site):
    assert site.get("/api/v1/overview?shelf=top").status_code == 400
    assert site.get("/?shelf=top").status_code == 400
    assert site.get("/?shelf=deleted").status_code == 200


def test_hostile_names_travel_as_they_are(make_app, tmp_path, fill, made_run):
    name = "<script>alert(1)</script>\u202e🚀\x07" + "y" * 400
    fill(tmp_path / "trainvitals.db", made_run("hostile", steps=30, name=name))
    (run,) = json.loads(make_app().test_client().get("/api/v1/overview").data)["runs"]
    assert run["name"] == name


@pytest.mark.parametrize("since", ["-1", "x", "1e9", str(2**54)])
def test_a_wrong_cursor_is_a_400(site, since):
    assert site.get(f"/api/v1/overview?since={since}").status_code == 400
