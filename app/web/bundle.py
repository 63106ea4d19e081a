"""One script and one style sheet for each page, made from the modules in static/ as they are.

A first visit would otherwise wait for thirty small files, each of which costs the browser and the server more than its
bytes. The modules keep to one form of `import` and `export`, a line each (tests/web/test_bundle.py), so that putting
them into one file is a matter of text: every module becomes a function that returns what it exports.
"""

import re
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, current_app

from trainvitals.app.web import assets
from trainvitals.app.web.errors import ApiError

bp = Blueprint("bundle", __name__)

STYLES = ("app.css", "desk.css", "charts.css")
MAX_PARTS = 4
"""Scripts that a page may name: its own, and those of what several pages have."""
_IMPORT = re.compile(r'^import (?:\{(?P<names>[^}]*)\} from )?"\./(?P<path>[a-z]+)\.js";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.M)


def addresses(scripts: list[str]) -> dict[str, str]:
    """Where a page finds its `style`, and its `script` made of the modules `scripts`: new places for new content."""
    base = f"/assets/{current_app.config['DIGEST']}"
    return {"style": f"{base}/all.css", "script": f"{base}/{'-'.join(scripts)}.js"}


@bp.get("/assets/<digest>/all.css")
def style(digest: str) -> Response:
    """The style sheets of all pages as one."""
    return assets.kept_forever(_packed_styles(_folder(digest)), "text/css")


@bp.get("/assets/<digest>/<names>.js")
def script(digest: str, names: str) -> Response:
    """The scripts of a page and all that they import."""
    folder = _folder(digest) / "js"
    parts = tuple(names.split("-"))
    known = {path.stem for path in folder.glob("*.js")}
    if len(parts) > MAX_PARTS or not known.issuperset(parts):
        raise ApiError(404, "not_found", "There is no such script. Reload the page.")
    return assets.kept_forever(_packed_scripts(folder, parts), "text/javascript")


def joined(folder: Path, names: tuple[str, ...]) -> str:
    """The modules `names` of `folder` and those they import, each once and after what it needs."""
    made: dict[str, str] = {}
    for name in names:
        _add(folder, name, made, ())
    return "".join(made.values())


def _add(folder: Path, name: str, made: dict[str, str], within: tuple[str, ...]) -> None:
    if name in within:
        raise ValueError(f"Scripts import each other: {' -> '.join((*within, name))}.")
    if name in made:
        return
    text = (folder / f"{name}.js").read_text(encoding="utf-8")
    for needed in _IMPORT.finditer(text):
        _add(folder, needed["path"], made, (*within, name))
    exported = _EXPORT.findall(text)
    body = _EXPORT.sub("", _IMPORT.sub(_taken, text))
    made[name] = f"const ${name} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();\n"


def _taken(found: re.Match[str]) -> str:
    """An import as names taken from what the module's function returned."""
    if found["names"] is None:
        return ""
    return f"const {{{found['names'].replace(' as ', ': ')}}} = ${found['path']};\n"


def _folder(digest: str) -> Path:
    """Where the files are that make up `digest`. Raises ApiError 404 for those of another release."""
    if digest != current_app.config["DIGEST"]:
        raise ApiError(404, "not_found", "This server has other scripts by now. Reload the page.")
    return Path(str(current_app.static_folder))


@cache
def _packed_scripts(folder: Path, names: tuple[str, ...]) -> tuple[bytes, bytes]:
    return assets.packed(joined(folder, names).encode())


@cache
def _packed_styles(folder: Path) -> tuple[bytes, bytes]:
    return assets.packed(b"".join((folder / name).read_bytes() for name in STYLES))
