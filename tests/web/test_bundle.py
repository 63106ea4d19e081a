"""The scripts and styles of a page as one file each."""

import re
from pathlib import Path

import pytest

from trainvitals.app.web import bundle

JS = Path(__file__).parents[2] / "static" / "js"
PAGES = ("/", "/runs/sick", "/runs/sick/layers/block2.conv1", "/alerts", "/settings", "/login")


@pytest.fixture
def site(make_app, tmp_path, fill, made_run):
    fill(tmp_path / "trainvitals.db", made_run("sick", steps=40, sick=True))
    return make_app().test_client()


def address(site, path, ending):
    return re.search(rf'"(/assets/[^"]+\.{ending})"', site.get(path).get_data(as_text=True))[1]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_one_script_and_one_style_sheet_that_are_kept_for_good(site, path):
    page = site.get(path).get_data(as_text=True)
    assert page.count('type="module"') == page.count('rel="stylesheet"') == 1
    for ending, kind in (("js", "text/javascript"), ("css", "text/css")):
        answer = site.get(address(site, path, ending), headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200
        assert answer.mimetype == kind
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("module", sorted(path.stem for path in JS.glob("*.js")))
def test_a_script_holds_what_it_needs_once_and_before_it(module):
    made = bundle.joined(JS, (module,))
    defined = re.findall(r"^const \$(\w+) = ", made, re.M)
    used = [(m[1], m.start()) for m in re.finditer(r"\} = \$(\w+);$", made, re.M)]
    assert defined[-1] == module
    assert len(defined) == len(set(defined))
    assert all(made.index(f"const ${name} = ") < place for name, place in used)
    assert not re.search(r"^(import|export) ", made, re.M), "an import or export of another form"


def test_scripts_that_import_each_other_are_told(tmp_path):
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\nexport const a = 1;\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\nexport const b = 1;\n')
    with pytest.raises(ValueError, match="a -> b -> a"):
        bundle.joined(tmp_path, ("a",))


def test_what_another_release_had_is_not_there(site):
    mine = address(site, "/", "js")
    digest = mine.split("/")[2]
    assert site.get(mine.replace(digest, "0" * len(digest))).status_code == 404
    for names in ("none", "run-none", "..-run", "run-run-run-run-run"):
        answer = site.get(f"/assets/{digest}/{names}.js")
        assert answer.status_code == 404
