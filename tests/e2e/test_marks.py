"""Labels of findings in the loss chart, as Chromium draws them."""

from itertools import combinations

import msgspec
import pytest

from trainvitals.app.web import runview

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTE_TEXTS = """
const fill = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
  const { width } = this.measureText(text);
  const left = x - width * { left: 0, start: 0, center: 0.5, right: 1, end: 1 }[this.textAlign];
  window.drawn = [...(window.drawn ?? []), { text, left, right: left + width, bottom: y, baseline: this.textBaseline,
    canvas: this.canvas }];
  return fill.call(this, text, x, y, ...rest);
};
"""
LABELS = """
window.drawn.filter(one => one.baseline === 'bottom' && one.canvas.closest('[data-figure=loss]'))
  .map(({ text, left, right, bottom, canvas }) => ({ text, left, right, bottom, width: canvas.clientWidth }))
"""


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (900, "dark"), (400, "light")])
def test_labels_of_findings_of_one_step_lie_on_nothing_and_in_the_picture(
    open_page, monkeypatch, width, theme
):
    judged = runview.judged

    def with_more(store, run):
        findings, states = judged(store, run)
        root = runview.roots_of(findings)[0]
        more = [
            msgspec.structs.replace(
                root, key=f"more-{n}", rule=rule, first_step=root.first_step + n
            )
            for n, rule in ((0, "gradient-exploding-depth"), (1, "dead-units-growing"))
        ]
        return [*findings, *more], states

    monkeypatch.setattr(runview, "judged", with_more)
    page = open_page("/settings", width=width, theme=theme)
    page.add_init_script(NOTE_TEXTS)
    page.goto(page.url.replace("settings", "runs/sick"))
    page.wait_for_selector("body[data-drawn]")
    drawn = page.evaluate(LABELS)
    labels = {item["text"]: item for item in drawn}
    assert {text.split(" ")[0] for text in labels} >= {"1", "2", "3"}
    assert (max(map(len, labels)) > 3) is (width > 400)
    for one, other in combinations(labels.values(), 2):
        apart = one["right"] <= other["left"] or other["right"] <= one["left"]
        assert apart or abs(one["bottom"] - other["bottom"]) >= 11, (one, other)
    for one in labels.values():
        assert one["bottom"] >= 11 and one["left"] >= 0 and one["right"] <= one["width"]
