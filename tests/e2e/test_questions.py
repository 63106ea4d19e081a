"""What people come with, answered on the page in at most two interactions."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MAP = "[data-figure=vitals] canvas"


def table_of(page, card):
    """Open the table of a card's chart: rows of text."""
    page.click(f"{card} [data-table]")
    return page.evaluate(
        "[...document.querySelectorAll('#table tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )


def test_is_it_healthy(open_page):
    page = open_page("/runs/healthy")
    assert page.inner_text(".verdict .state") == "Healthy."
    assert open_page("/runs/sick").inner_text(".verdict .state") == "Unhealthy."


def test_which_activations_die_and_since_when(open_page):
    page = open_page("/runs/sick")
    page.keyboard.press("4")
    open_page.until(page, f"document.querySelector('{MAP}').ariaLabel.includes('block2.relu1')")
    ill = {
        row[0]: int(row[2])
        for row in table_of(page, ".card.map")
        if row[1].startswith("too small, or dead")
    }
    # dead units of these rise by 2 % a step from step 240 on, and count from 30 %: at step 256
    assert set(ill) == {"block2.relu1", "block2.relu2"}
    assert all(250 <= step <= 262 for step in ill.values())


def test_whose_update_ratio_is_off(open_page):
    page = open_page("/runs/sick")
    page.keyboard.press("2")
    open_page.until(
        page, "document.querySelector('[data-statistic=update_ratio]').ariaPressed === 'true'"
    )
    open_page.until(page, f"document.querySelector('{MAP}').ariaLabel.includes('block2.conv1')")
    ill = [row for row in table_of(page, ".card.map") if row[1].startswith("too large")]
    assert {row[0] for row in ill} >= {"block2.conv1", "block2.conv2", "head.fc1", "head.fc2"}
    assert all(238 <= int(row[2]) <= 242 for row in ill)


def test_where_did_nan_start(open_page):
    page = open_page("/runs/sick")
    told = page.get_attribute(MAP, "aria-label")
    assert re.search(r"first in block2\.conv1 at step 35[0-2]", told)


def test_how_did_a_weight_distribution_change(open_page):
    page = open_page("/runs/sick/layers/block2.conv1")
    page.click("[data-form=quantiles]")
    label = "document.querySelector('[data-key=\"histogram/weight\"] canvas').ariaLabel"
    open_page.until(page, f"{label}.includes('Half of')")
    page.click("[data-form=ridgeline]")
    open_page.until(page, f"{label}.includes('the earliest on top')")
    page.click("[data-form=heatmap]")
    open_page.until(page, f"{label}.includes('values from')")
    page.locator("#moment").fill("2")
    open_page.until(page, "document.querySelector('#moment-text').textContent === '40'")
    assert "form" not in page.url
    assert "at=40" in page.url


def test_does_it_overfit(open_page):
    page = open_page("/runs/sick")
    facts = page.inner_text(".facts")
    assert "val loss" in facts
    now, best = (float(n) for n in re.search(r"([\d.]+) best ([\d.]+)", facts).groups())
    assert now > 2 * best
    assert "at best" in page.get_attribute("[data-figure=loss] canvas", "aria-label")


def test_what_should_i_do(open_page):
    page = open_page("/runs/sick")
    assert page.inner_text(".verdict .do").startswith("Do this: Lower the learning rate")


def test_why_do_you_think_so_and_show_me_there(open_page):
    page = open_page("/runs/sick")
    page.click(".finding .why summary")
    assert "compared what it saw" in page.inner_text(".finding .why")
    page.click("[data-show]")
    open_page.until(page, "document.querySelector('[data-figure=loss]').layout.xaxis.range[0] > 0")
    first, last = map(int, re.search(r"s=(\d+)-(\d+)", page.url).groups())
    assert 0 < first < 240 < 419 < last


def test_the_model_tree_rolls_health_and_sizes_up(open_page):
    page = open_page("/runs/sick/model")
    block = page.locator("li[data-name=block2] > details > summary")
    assert "4,640" in block.inner_text()  # two convolutions of 16*16*3*3 + 16
    assert block.locator("svg").first.get_attribute("aria-label") == "critical"
    healthy = page.locator("li[data-name=block1] > details > summary svg").first
    assert healthy.get_attribute("aria-label") == "healthy"
    page.click("#model-sick")
    assert not page.locator("li[data-name=block1]").is_visible()
    assert page.locator("li[data-name='block2.conv1']").is_visible()


def test_a_finding_is_acknowledged_and_muted_where_it_is_read(open_page):
    page = open_page("/runs/sick")
    page.click(".finding[open] [data-do=acknowledge]")
    page.wait_for_selector(".finding[open] [data-do=unacknowledge]")
    page.click(".finding[open] [data-do=mute]")
    page.wait_for_selector(".finding[open] [data-do=unmute]")
    again = open_page("/runs/sick")
    assert "Acknowledged" in again.inner_text(".finding[open]")
    again.click(".finding[open] [data-do=unmute]")
    again.wait_for_selector(".finding[open] [data-do=mute]")
