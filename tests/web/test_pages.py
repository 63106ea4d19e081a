"""What the pages say, as HTML."""

import re
from urllib.parse import urlsplit

import pytest

from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.web.runview import is_dated
from trainvitals.app.web.verdict import verdict

HOSTILE = {
    "head.fc2": "<b>fc</b><img src=x onerror=alert(1)>\"'&amp;%{x}",
    "block1.conv1": "x" * 480,
    "block2.relu1": "שלום\u202eevil",
    "head.fc1": "a/b//c 🚀?#",
    "block1.conv2": "../..",
}


@pytest.fixture(scope="module")
def site(open_app, tmp_path_factory, fill, made_run):
    path = tmp_path_factory.mktemp("site") / "trainvitals.db"
    fill(
        path,
        made_run("healthy", steps=300, name="steady").end(),
        made_run("sick", steps=400, sick=True).end("failed", "RuntimeError: loss is NaN"),
        made_run("young", steps=4),
        made_run("hostile", steps=40, name="<script>alert(1)</script>", names=HOSTILE),
    )
    return open_app(path).test_client()


def text(response):
    assert response.status_code == 200
    return response.get_data(as_text=True)


def test_without_runs_the_list_shows_how_to_attach(client):
    page = text(client.get("/"))
    assert "No runs yet" in page
    assert "tv.watch(model, optimizer)" in page


def test_a_healthy_run_says_so(site):
    page = text(site.get("/runs/healthy"))
    assert 'data-level="ok"' in page
    assert "Healthy." in page
    assert "No findings" in page


def test_a_sick_run_leads_with_its_root_cause_and_the_remedy(site):
    page = text(site.get("/runs/sick"))
    verdict = page[page.index('class="card verdict') : page.index('id="findings"')]
    assert "Unhealthy." in verdict
    assert re.search("learning rate", verdict, re.I)
    assert "Do this:" in verdict
    assert "What followed" in page
    assert "RuntimeError: loss is NaN" in page


def test_what_followed_repeats_nothing_that_the_root_tells(site):
    page = text(site.get("/runs/sick"))
    first = page[page.index("<h3>Root cause</h3>") : page.index("<h3>Do this</h3>")]
    seen, followed = first.split("<h3>What followed</h3>")
    assert "One step changed block2.conv1" in seen and "since step 240" in seen
    assert "activations left their usual size" in followed
    assert "Learning rate rose" not in followed
    assert "of its units are dead" not in followed
    layer = text(site.get("/runs/sick/layers/block2.conv1"))
    touching = layer[
        layer.index('class="touching"') : layer.index("</ul>", layer.index('class="touching"'))
    ]
    assert touching.count("Learning rate rose") == 1


def test_a_run_of_a_few_steps_is_not_called_healthy(site):
    page = text(site.get("/runs/young"))
    assert "Gathering." in page
    assert "Healthy." not in page


def test_a_healthy_run_with_a_note_says_both():
    note = Finding(
        key="dead-relu-units/relu3",
        rule="dead-relu-units",
        severity="info",
        state="firing",
        first_step=213,
        last_step=599,
        layers=["relu3"],
        root=True,
        cause="",
        evidence={},
        title="relu3: 20 % of its units are dead",
        remedy="",
    )
    states = [RuleState(rule="nonfinite-loss", state="ok", reason="")]
    judged = verdict([note], states, "finished", 599)
    assert judged.state == "Healthy."
    assert judged.sentence.endswith("1 note below.")


@pytest.mark.parametrize(
    ("step", "ok", "status", "said"),
    [
        (19, 3, "running", "Gathering."),
        (20, 3, "running", "Healthy so far."),
        (20, 30, "running", "Healthy."),
        (20, 3, "finished", "Healthy."),
        (500, 0, "running", "Gathering."),
    ],
)
def test_rules_that_wait_for_what_never_happens_keep_no_run_from_being_healthy(
    step, ok, status, said
):
    words = ["ok"] * ok + ["not enough data"] * (60 - ok)
    states = [RuleState(rule=f"r{n}", state=word, reason="") for n, word in enumerate(words)]
    judged = verdict([], states, status, step)
    assert judged.state == said
    assert (f"{ok} checks found nothing wrong in" in judged.sentence) is ("Healthy" in said)
    assert (f"; {60 - ok} wait for more data." in judged.sentence) is (said == "Healthy so far.")


@pytest.mark.parametrize(
    ("states", "status", "step", "said"),
    [
        ([], "finished", 9_999, "Not judged yet."),
        ([], "running", 9_999, "Not judged yet."),
        ([], "finished", 5, "Too short."),
        ([], "running", 5, "Gathering."),
        (["not enough data"], "finished", 9_999, "Not judged."),
        (["not enough data"], "running", 9_999, "Gathering."),
    ],
)
def test_a_run_that_no_rule_has_judged_is_told_as_such(states, status, step, said):
    held = [RuleState(rule="r", state=state, reason="") for state in states]
    judged = verdict([], held, status, step)
    assert (judged.level, judged.state) == ("wait", said)


def test_hostile_names_stay_text(site):
    for path in ("/", "/runs/hostile", "/runs/hostile/layers/stem.conv"):
        page = text(site.get(path))
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;" in text(site.get("/runs/hostile"))


def test_every_layer_has_a_page_whatever_its_name(site):
    rows = site.get("/api/v1/runs/hostile/figures/vitals").json["layout"]["meta"]["rows"]
    assert {row["name"] for row in rows} >= set(HOSTILE.values())
    for row in rows:
        assert not urlsplit(row["link"]).netloc
        page = text(site.get(row["link"]))
        assert "place" in page


def test_a_layer_s_page_names_its_findings_and_neighbours(site):
    page = text(site.get("/runs/sick/layers/block2.conv1"))
    assert "16×16×3×3" in page
    assert 'rel="prev"' in page
    assert 'rel="next"' in page
    assert "Findings that touch this layer" in page


def test_an_unknown_run_or_layer_says_so(site):
    for path in ("/runs/none", "/runs/healthy/layers/none"):
        response = site.get(path)
        assert response.status_code == 404
        assert b"All runs" in response.data


def test_alerts_show_the_root_causes(site):
    page = text(site.get("/alerts"))
    assert "waits for someone" in page
    assert "Do this:" in page
    assert "Nothing was sent yet" in page


def test_no_page_has_an_inline_script_or_handler(site):
    paths = ("/", "/runs/sick", "/runs/sick/layers/stem.conv", "/alerts", "/login", "/nothing")
    for path in paths:
        page = site.get(path).get_data(as_text=True)
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)
        assert not re.search(r"<[^>]+\son\w+=", page)
        assert not re.search(r"<[^>]+\sstyle=", page)
        assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_plotly_is_served_compressed_and_cached_under_its_version(site):
    page = text(site.get("/"))
    address = re.search(r'data-plotly="([^"]+)"', page)[1]
    packed = site.get(address, headers={"Accept-Encoding": "gzip"})
    plain = site.get(address)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "immutable" in packed.headers["Cache-Control"]
    assert len(packed.data) < len(plain.data) / 2
    assert site.get("/assets/plotly-0.0.0.min.js").status_code == 404


def test_news_come_with_a_new_version_only(site):
    first = site.get("/api/v1/runs/sick/live").json
    assert first["changed"]
    assert "Unhealthy." in first["verdict"]
    again = site.get(f"/api/v1/runs/sick/live?version={first['version']}").json
    assert not again["changed"]
    assert "verdict" not in again
    assert again["status"] == "failed"


@pytest.mark.parametrize(
    ("title", "step", "said"),
    [
        ("Gradient norm rose to 17 times its usual size since step 242", 242, True),
        ("NaN first appeared in fc1 at step 352", 35, False),
        ("relu2: 76 % of its units are dead", 102, False),
    ],
)
def test_when_a_finding_began_is_told_once(title, step, said):
    assert is_dated(title, step) is said
