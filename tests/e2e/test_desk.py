"""The list of runs, the comparison, alerts, settings and the report in a real browser."""

import time

import msgspec
import pytest
from e2e.axe import violations

from trainvitals.app.alerts.message import finding_id
from trainvitals.app.store import Store

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "\"'><script>window.hacked=1</script>",
    "שלום\u202eevil",
    "🚀" * 40,
    "a\x00b\x07c\x1b[31m",
    "x" * 500,
]


def names(page):
    return page.locator("#rows a.run").all_inner_texts()


def search(page, text):
    page.fill("#search", text)
    return names(page)


def test_the_list_is_searched_by_words_fields_and_numbers(open_page):
    page = open_page("/")
    assert len(names(page)) == 4
    assert [n.split("/ ")[1] for n in search(page, "verdict:unhealthy")] == ["resnet-high-lr"]
    assert len(search(page, "tag:resnet steps>=420")) == 2
    assert len(search(page, "val/accuracy>0.7 -status:failed")) == 1
    assert search(page, "momentum>0.9") == []
    assert "No run has “momentum”" in page.inner_text("#unknown")
    page.click("#clear-search")
    assert len(names(page)) == 4


def test_the_view_of_the_list_is_in_its_address(open_page):
    page = open_page("/?q=steps>5&sort=steps&group=verdict")
    assert page.input_value("#search") == "steps>5"
    assert page.get_attribute("th[data-sort=steps]", "aria-sort") == "ascending"
    groups = page.locator("tr.group").all_inner_texts()
    said = [text.partition(".")[0] for text in groups]
    assert said == ["Gathering", "Healthy so far", "Healthy", "Unhealthy"]
    page.click("th[data-sort=steps] button")
    assert page.get_attribute("th[data-sort=steps]", "aria-sort") == "descending"
    assert "sort=-steps" in page.url


def test_a_new_run_and_a_new_step_arrive_without_reload(open_page, grow, site, fill, made_run):
    page = open_page("/")
    row = page.locator("tr[data-run=live]")
    assert row.locator("[data-label=steps]").inner_text() == "150"
    grow(150)
    open_page.until(
        page, "document.querySelector('tr[data-run=live] [data-label=steps]').innerText === '151'"
    )
    fill(site.path, made_run("newest", steps=8, start=time.time()), received=time.time())
    page.wait_for_selector("tr[data-run=newest]")
    assert names(page)[0].endswith("newest")


def shown(page, *runs):
    """Wait until the list shows these runs and no other."""
    ids = "[...document.querySelectorAll('#rows tr[data-run]')].map(row => row.dataset.run).sort().join()"
    for _ in range(400):
        if page.evaluate(ids) == ",".join(sorted(runs)):
            return True
        page.wait_for_timeout(50)
    return False


def test_a_run_that_leaves_the_list_elsewhere_leaves_every_open_page(open_page, site):
    page = open_page("/")
    assert shown(page, "healthy", "sick", "live", "young")
    with Store.open(site.path) as store:
        store.delete_run("sick", time.time())
        assert shown(page, "healthy", "live", "young")
        store.archive_run("healthy", time.time())
        assert shown(page, "live", "young")
        store.restore_run("sick")
        store.unarchive_run("healthy")
        assert shown(page, "healthy", "sick", "live", "young")


def test_runs_are_deleted_archived_and_brought_back_in_the_page(open_page, site):
    page = open_page("/")
    page.check("[data-pick=sick]")
    page.click("#delete")
    assert shown(page, "healthy", "live", "young")
    page.click(".toast button:has-text('Undo')")
    assert shown(page, "healthy", "sick", "live", "young")
    page.check("[data-pick=sick]")
    page.click("#delete")
    assert shown(page, "healthy", "live", "young")
    page.check("[data-pick=healthy]")
    page.click("#archive")
    assert shown(page, "live", "young")

    page.select_option("#shelf", "archived")
    assert shown(page, "healthy")
    assert "shelf=archived" in page.url
    page.check("[data-pick=healthy]")
    assert page.locator("#archive, #restore").evaluate_all("all => all.every(e => e.hidden)")
    page.click("#unarchive")
    assert shown(page)
    assert page.inner_text("#bare") == "No archived runs."

    page.select_option("#shelf", "deleted")
    assert shown(page, "sick")
    assert "restored for 7 days" in page.inner_text("main")
    assert page.locator("tr[data-run=sick] a").count() == 0
    assert violations(page) == []
    page.check("[data-pick=sick]")
    page.click("#restore")
    assert shown(page)
    with Store.open(site.path) as store:
        assert {run.id for run in store.runs()} == {"healthy", "sick", "live", "young"}


def test_runs_are_selected_and_compared_by_keys_alone(open_page):
    page = open_page("/")
    search(page, "resnet-")
    page.keyboard.press("Escape")
    for _ in range(2):
        page.keyboard.press("j")
        page.keyboard.press("x")
    assert page.inner_text("#chosen-count") == "2 selected"
    page.keyboard.press("c")
    page.wait_for_url("**/compare?runs=*")
    page.wait_for_selector("body[data-drawn]")
    assert page.locator(".compared li").count() == 2


def test_how_two_runs_differ_by_layer_is_answered_in_two_interactions(open_page):
    page = open_page("/runs/sick")
    page.click("#compare-with")
    page.click("#compare-list a:has-text('resnet-adam-1e-3')")
    page.wait_for_selector("body[data-drawn][data-runs]")
    open_page.until(page, "document.getElementById('parting').innerText.startsWith('They part')")
    told = page.inner_text("#parting")
    assert "at step 240 in block2.conv1" in told
    assert "180 times" in told
    assert "block2.conv1" in page.inner_text("#most")


def test_a_comparison_keeps_its_view_in_the_address(open_page):
    page = open_page("/compare?runs=sick,healthy&m=std&x=val%2Faccuracy&s=100-300")
    assert page.get_attribute("[data-statistic=std]", "aria-pressed") == "true"
    assert page.input_value("#metric") == "val/accuracy"
    assert "100–300" in page.inner_text("#range-text")
    assert page.evaluate("document.getElementById('difference').layout.xaxis.range[0]") >= 100
    page.keyboard.press("z")
    open_page.until(page, "!new URLSearchParams(location.search).has('s')")


def test_an_alert_is_acknowledged_muted_and_undone(open_page, site):
    page = open_page("/alerts")
    assert page.inner_text("#inbox-title") == "1 waits for someone"
    page.keyboard.press("j")
    page.keyboard.press("a")
    page.wait_for_selector("#handled-title")
    assert page.inner_text("#inbox-title") == "Nothing waits for anyone"
    page.click(".toast button:has-text('Undo')")
    open_page.until(
        page, "document.getElementById('inbox-title').innerText === '1 waits for someone'"
    )
    page.select_option("[data-mute]", "24")
    page.wait_for_selector("[data-do=unmute]")
    with Store.open(site.path) as store:
        (said,) = store.handling("sick").values()
    assert said.muted_until == pytest.approx(time.time() + 86400, abs=600)


def test_the_link_in_a_message_leads_to_its_alert(open_page, site):
    with Store.open(site.path) as store:
        root = next(item for item in store.findings("sick") if item.root)
    page = open_page(f"/alerts?finding={finding_id('sick', root.key)}")
    asked = page.locator(".message.asked")
    assert root.title[:40] in asked.inner_text()
    assert asked.evaluate("e => e === document.activeElement")
    asked.locator("[data-preview]").click()
    page.wait_for_selector(".preview")


def test_the_settings_tell_the_policy_its_mistakes_and_the_retention(open_page, serve, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[rules.update-ratio-high]\nratio = 0.2\nreason = 'large steps are meant to be'\n\n"
        "[[acknowledge]]\nrule = 'dead-relu-units'\nuntil = 2099-12-31\nlayers = ['encoder.*']\n"
    )
    other = serve(tmp_path / "settings.db", rules=rules, retention="days=90 undo_days=3")
    page = open_page("/settings", base=other.url)
    told = page.inner_text("#policy")
    assert "The file is right, and in force." in told
    assert "ratio = 0.2" in told
    assert "large steps are meant to be" in told
    assert "acknowledged until 2099-12-31 in encoder.*" in told
    assert "days=90 undo_days=3" in page.inner_text("main")
    assert violations(page) == []
    rules.write_text("[rules.update-ratio-high]\nratoi = 0.2\n")
    page = open_page("/settings", base=other.url)
    assert "The file has mistakes" in page.inner_text("#policy")
    assert "Line 2" in page.inner_text("#policy .problem")
    assert violations(page) == []
    deleted = open_page("/?shelf=deleted", base=other.url)
    assert "restored for 3 days" in deleted.inner_text("main")


def test_keys_lead_to_every_page_and_the_help_lists_them(open_page):
    page = open_page("/settings")
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/alerts")
    page.wait_for_selector("body[data-drawn]")
    page.keyboard.press("/")
    page.wait_for_url("**/#search")
    page.wait_for_selector("body[data-drawn]")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    told = page.inner_text("#help")
    assert all(words in told for words in ("search the runs", "alerts", "settings", "compare"))


def test_what_is_on_screen_is_taken_along(open_page):
    page = open_page("/runs/sick")
    page.keyboard.press("e")
    with page.expect_download() as download:
        page.click("#export li:has-text('Loss') button:has-text('CSV')")
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("step,")
    assert len(lines) > 300
    assert any(line.startswith("240,") for line in lines)
    with page.expect_download() as download:
        page.click("#export li:has-text('Loss') button:has-text('PNG')")
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as download:
        page.click("#export li:has-text('Loss') button:has-text('SVG')")
    assert b"<svg" in download.value.path().read_bytes()


def test_a_report_opens_offline_and_asks_for_nothing(open_page, chromium, tmp_path):
    page = open_page("/runs/sick")
    html = page.evaluate("fetch('/runs/sick/report').then(r => r.text())")
    path = tmp_path / "report.html"
    path.write_text(html)
    alone = chromium.new_context(offline=True).new_page()
    asked = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(path.as_uri())
    assert "Unhealthy." in alone.inner_text(".verdict")
    assert alone.locator("svg.static").count() >= 4
    assert asked == [path.as_uri()]
    assert violations(alone) == []
    alone.context.close()


@pytest.mark.parametrize("width", [1440, 400])
def test_hostile_names_are_text_on_every_page(open_page, site, fill, made_run, width):
    ids = []
    for index, name in enumerate(HOSTILE):
        run = made_run(
            f"h{index}", steps=45, name=name, project=name[:60], names={"block2.conv1": name}
        )
        start = run.records[0]
        run.records[0] = type(start)(
            **{
                f: getattr(start, f) for f in start.__struct_fields__ if f not in ("tags", "config")
            },
            tags=[name],
            config={name[:60]: name},
        )
        run.records = [
            msgspec.structs.replace(record, scalars=record.scalars | {name: 1.0})
            if hasattr(record, "scalars")
            else record
            for record in run.records
        ]
        ids.append(run.run)
        fill(site.path, run)
    chosen = ",".join(["sick", *ids])
    for path in (
        "/",
        f"/compare?runs={chosen}",
        "/alerts",
        *(f"/runs/{run}/report" for run in ids),
    ):
        page = open_page(path, width=width, drawn="report" not in path)
        assert page.locator("main img, main script").count() == 0
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if path == "/":
            assert "<img src=x" in page.inner_text("#rows")
            assert (
                page.locator("[data-tag]")
                .evaluate_all("all => all.map(e => e.dataset.tag)")
                .count(HOSTILE[0])
            )
        page.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/compare?runs=sick,healthy,live", "/alerts", "/settings"])
def test_axe_finds_nothing(open_page, path, theme):
    page = open_page(path, theme=theme)
    assert violations(page) == []
    page.keyboard.press("?")
    assert violations(page) == []
