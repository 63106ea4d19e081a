"""The report: one file with nothing to load, and charts as pictures."""

import re
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from trainvitals.app.cli import main

HOSTILE = {"head.fc2": "<img src=x onerror=alert(1)>\"'&", "block1.conv1": "y" * 480}


@pytest.fixture(scope="module")
def database(tmp_path_factory, fill, made_run):
    path = tmp_path_factory.mktemp("reports") / "trainvitals.db"
    fill(
        path,
        made_run("healthy", steps=300).end(),
        made_run("sick", steps=400, sick=True).end("failed", "RuntimeError: <boom>"),
        made_run("hostile", steps=60, name="</style><script>alert(1)</script>", names=HOSTILE),
        made_run("bare", steps=0),
    )
    return path


@pytest.fixture(scope="module")
def site(database, open_app):
    return open_app(database).test_client()


def report(site, run):
    answer = site.get(f"/runs/{run}/report")
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


def test_a_report_tells_cause_remedy_and_consequences(site):
    page = report(site, "sick")
    for part in ("Unhealthy.", "Learning rate rose", "Do this:", "What followed:", "Vitals map"):
        assert part in page
    assert "RuntimeError: &lt;boom&gt;" in page
    assert page.count('<svg class="static"') >= 4


@pytest.mark.parametrize("run", ["healthy", "sick", "hostile", "bare"])
def test_a_report_loads_nothing_and_runs_nothing(site, run):
    page = report(site, run)
    assert len(page.encode()) < 5e6
    assert not re.search(r"<(script|img|link|iframe|object|embed)\b", page)
    assert not re.search(r"""(src|href|xlink:href)=["']?(http|//|/)""", page)
    assert not re.search(r"url\(|@import", page)


def test_every_drawing_is_well_formed(site):
    page = report(site, "hostile")
    drawings = re.findall(r"<svg class=\"static\".*?</svg>", page, re.S)
    assert drawings
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "&lt;img" in page  # shortened to fit


def test_the_policy_allows_the_report_its_own_style_alone(site):
    policy = site.get("/runs/sick/report").headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy
    assert "default-src 'none'" in policy
    assert "sha256-" in policy


def test_the_command_writes_the_same_file(database, tmp_path):
    path = tmp_path / "out.html"
    done = CliRunner().invoke(
        main, ["report", "sick", "--database", str(database), "-o", str(path)]
    )
    assert done.exit_code == 0, done.output
    assert "Learning rate rose" in path.read_text(encoding="utf-8")
    failed = CliRunner().invoke(main, ["report", "none", "--database", str(database)])
    assert failed.exit_code == 1
    assert "runs ls" in failed.output


@pytest.mark.parametrize("chart", ["loss", "vitals", "tv/lr", "val/accuracy"])
def test_a_chart_is_a_picture_of_its_own(site, chart):
    answer = site.get(f"/api/v1/runs/sick/chart.svg?chart={chart}&start=100&stop=300")
    assert answer.mimetype == "image/svg+xml"
    assert ElementTree.fromstring(answer.data).tag.endswith("svg")
    assert "script-src" not in answer.headers["Content-Security-Policy"]


def test_a_chart_that_is_not_there_is_a_404(site):
    assert site.get("/api/v1/runs/sick/chart.svg?chart=<script>").status_code == 404
    assert site.get("/api/v1/runs/bare/chart.svg?chart=vitals").status_code == 404


def test_a_one_step_spike_is_in_the_drawing(site):
    drawn = site.get("/api/v1/runs/sick/chart.svg?chart=loss").get_data(as_text=True)
    assert "var(--nan)" in drawn
