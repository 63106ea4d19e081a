"""How pages tell of findings that several signs make up, in what order, and of numbers that tell nothing yet."""

import time

import pytest

from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import Store
from trainvitals.hooks.wire.records import Start, Step

SIGNS = ["Smoothed loss up to 10; its best was 0.2", "<b>relu1</b>: all of its units are dead"]
SHOWN = ["Smoothed loss up to 10; its best was 0.2", "&lt;b&gt;relu1&lt;/b&gt;: all of its"]


def found(key, severity, **evidence):
    return Finding(
        key=key,
        rule=key,
        severity=severity,
        state="firing",
        first_step=3,
        last_step=9,
        layers=["fc1"],
        root=True,
        cause="",
        evidence={"seen": "; ".join(SIGNS), "expected": "less", **evidence},
        title=f"{key} is told",
        remedy="Less.",
    )


@pytest.fixture
def site(make_app, tmp_path, made_run):
    told = {
        "older": found("worse", "critical", each=SIGNS),
        "newer": found("better", "warning"),
    }
    with Store.open(tmp_path / "trainvitals.db") as store:
        for at, (name, finding) in enumerate(told.items()):
            for batch in made_run(name, steps=20).batches():
                store.append(batch, time.time() + at)
            assert name in store.claim("me", 60, time.time())
            store.commit_evaluation(name, "me", {}, b"", [finding], [], time.time())
    return make_app().test_client()


@pytest.mark.parametrize("path", ["/runs/older", "/alerts", "/runs/older/report"])
def test_several_signs_are_a_list(site, path):
    page = site.get(path).get_data(as_text=True)
    listed = page.partition('<ul class="signs">')[2].partition("</ul>")[0]
    assert listed.count("<li>") == len(SIGNS)
    assert all(f"<li>{text}" in listed for text in SHOWN)


def test_one_sign_is_no_list(site):
    assert '<ul class="signs">' not in site.get("/runs/newer").get_data(as_text=True)


def test_what_is_critical_stands_above_warnings_of_newer_runs(site):
    page = site.get("/alerts").get_data(as_text=True)
    assert 0 < page.index("worse is told") < page.index("better is told")


@pytest.mark.parametrize(
    ("steps", "seconds", "told"), [(99, 1.0, False), (100, 1.0, True), (300, 0.01, False)]
)
def test_the_share_of_monitoring_is_told_once_its_credit_is_small(
    client, send, steps, seconds, told
):
    start = Start(seq=0, time=1e9, project="digits", name="a name")
    scalars = {"tv/step_time": seconds, "tv/overhead": 0.02}
    records = [Step(seq=1 + n, time=1e9 + n, step=n, scalars=scalars) for n in range(steps)]
    assert send(records=[start, *records]).status_code == 200
    figures = client.get("/api/v1/runs/run-1/figures/metrics").json["figures"]
    assert ("tv/overhead" in [figure["key"] for figure in figures]) is told
