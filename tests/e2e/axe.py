"""axe-core on a page. It is evaluated by the browser itself, not added as a tag, so that the pages' policy holds."""

from importlib.resources import files

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def violations(page):
    """What axe-core finds wrong with `page`, one line each."""
    page.evaluate(AXE + "; null")
    found = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [
        f"{item['id']}: {item['help']}: {', '.join(node['target'][0] for node in item['nodes'][:3])}"
        for item in found
    ]
