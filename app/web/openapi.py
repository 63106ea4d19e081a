"""`GET /api/v1/openapi.json`: every route of the server, made from the routes themselves and from `OPERATIONS`."""

import inspect
import re
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Any, Final

import msgspec
from flask import Blueprint, Response, current_app
from werkzeug.routing import Rule

from trainvitals.app.export import FORMATS, MEDIA_TYPES
from trainvitals.app.figures import judged
from trainvitals.app.store.export import WHATS
from trainvitals.app.store.types import SHELVES
from trainvitals.app.web import shapes
from trainvitals.app.web.charts import SCALES
from trainvitals.app.web.compare import MOST, STATISTICS
from trainvitals.app.web.security import BATCH_TYPE, CSRF_HEADER
from trainvitals.app.web.serialize import json_response
from trainvitals.hooks.wire import verdict

bp = Blueprint("openapi", __name__)

Schema = dict[str, Any]


def _whole(low: int = 0, high: int = 2**53, default: int | None = None) -> Schema:
    schema: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return schema if default is None else schema | {"default": default}


def _one_of(options: tuple[str, ...], default: str | None = None) -> Schema:
    schema: Schema = {"type": "string", "enum": list(options)}
    return schema if default is None else schema | {"default": default}


@dataclass(frozen=True)
class Operation:
    """What a route's function does not say of itself."""

    answer: type | None = None
    """Shape of the answer, of one that is JSON."""
    media: tuple[str, ...] = ("application/json",)
    query: tuple[tuple[str, Schema], ...] = ()
    needed: tuple[str, ...] = ()
    """Parameters of the query that must be there."""
    body: str | None = None
    """Media type of a batch that is sent. What else changes something needs a header, and may send JSON."""
    sent: type | None = None
    """Shape of what is sent as JSON."""
    errors: tuple[int, ...] = ()
    """Beside those that follow from the route: 400 of every route, 404 where it names a run, 403 of a change, ..."""
    also: tuple[tuple[int, type], ...] = ()
    """Further answers that are no errors of the common shape."""


_LIMIT: Final = ("limit", _whole(1, 10_000, 1000))
_STEPS: Final = (("start", _whole()), ("stop", _whole()))
_RUNS: Final = ("runs", {"type": "string", "description": f"comma-separated, at most {MOST}"})
_NAMES: Final[Schema] = {"type": "string", "description": "comma-separated, at most 50"}

OPERATIONS: Final[dict[str, Operation]] = {
    "api.healthz": Operation(shapes.Health),
    "api.version": Operation(shapes.Version),
    "health.readyz": Operation(shapes.Ready, also=((503, shapes.Ready),)),
    "metrics.metrics": Operation(media=("text/plain",)),
    "openapi.openapi": Operation(dict),
    "api.list_runs": Operation(shapes.Runs, query=(_LIMIT, ("shelf", _one_of(SHELVES, "active")))),
    "api.show_run": Operation(shapes.Run),
    "api.delete_run": Operation(shapes.Deleted),
    "api.restore_run": Operation(shapes.Restored),
    "api.archive_run": Operation(shapes.Archived, errors=(409,)),
    "api.unarchive_run": Operation(shapes.Unarchived, errors=(409,)),
    "overview.overview": Operation(
        shapes.Overview, query=(("since", _whole(default=0)), ("shelf", _one_of(SHELVES, "active")))
    ),
    "findings_api.list_findings": Operation(shapes.Findings),
    "findings_api.show_finding": Operation(shapes.Finding, errors=(404,)),
    "findings_api.acknowledge": Operation(shapes.Finding, errors=(404,)),
    "findings_api.unacknowledge": Operation(shapes.Finding, errors=(404,)),
    "findings_api.mute": Operation(shapes.Finding, sent=shapes.Mute, errors=(404,)),
    "findings_api.unmute": Operation(shapes.Finding, errors=(404,)),
    "channels_api.list_channels": Operation(shapes.Channels),
    "channels_api.test_channel": Operation(shapes.Tried, errors=(404,)),
    "channels_api.preview": Operation(shapes.Preview, errors=(404, 409)),
    "api.list_states": Operation(shapes.States),
    "api.list_events": Operation(shapes.Events, query=(_LIMIT,)),
    "api.read_series": Operation(
        shapes.Series,
        query=(("names", _NAMES), *_STEPS, ("points", _whole(1, 20_000, 1000))),
        needed=("names",),
    ),
    "api.read_matrix": Operation(
        shapes.Matrix,
        query=(
            ("kind", _one_of(("activation", "parameter"))),
            ("statistic", {"type": "string"}),
            *_STEPS,
            ("buckets", _whole(1, 5_000, 400)),
        ),
        needed=("kind", "statistic"),
    ),
    "api.list_alerts": Operation(
        shapes.Deliveries, query=(("run", {"type": "string"}), ("limit", _whole(1, 5_000, 200)))
    ),
    "compare.curves": Operation(
        shapes.Figure, query=(_RUNS, ("name", {"type": "string"}), *_STEPS), needed=("runs",)
    ),
    "compare.layers": Operation(
        shapes.Comparison,
        query=(_RUNS, ("statistic", _one_of(tuple(STATISTICS), "update_ratio")), *_STEPS),
        needed=("runs",),
    ),
    "report.picture": Operation(
        media=("image/svg+xml",),
        query=(
            ("chart", {"type": "string", "default": "loss"}),
            ("statistic", _one_of(judged.STATISTICS, "vitals")),
            *_STEPS,
            ("smooth", _whole(0, 99)),
            ("scale", _one_of(SCALES, "auto")),
        ),
    ),
    "ingest.append": Operation(
        shapes.Receipt, body=BATCH_TYPE, errors=(404, 409, 410, 413, 415, 422, 429)
    ),
    "policy_api.show_policy": Operation(shapes.Policy),
    "policy_api.tell_verdict": Operation(verdict.Verdict),
    "export_api.export": Operation(
        media=tuple(media.split(";")[0] for media in MEDIA_TYPES.values()),
        query=(("what", _one_of(WHATS, "scalars")), ("format", _one_of(FORMATS, "csv"))),
        errors=(501,),
    ),
}
"""By endpoint. A route without an entry is one of the pages, or what they draw: its answer may change any time."""

_MEANINGS: Final = {
    400: "A parameter, a host name or a body that can't be used",
    401: "A token is needed",
    403: "A change without its header, or asked for by another site",
    404: "There is no such run, or nothing else of that name",
    409: "Something else came first",
    410: "The run was deleted for good",
    413: "Too large",
    415: "Another content type",
    422: "A record that does not fit its stream",
    429: "More is sent at once than the server takes; try again later",
    500: "A fault of the server",
    501: "Not installed on this server",
    503: "The database is busy or can't be written; try again later",
}
_ARGUMENT: Final = re.compile(r"<(?:(\w+):)?(\w+)>")


@bp.get("/api/v1/openapi.json")
def openapi() -> Response:
    """This description of every route."""
    return json_response(describe())


def describe() -> Schema:
    """The description of the current app, in OpenAPI 3.1."""
    answers = [item for op in OPERATIONS.values() for item in _shapes(op)]
    schemas, components = msgspec.json.schema_components(
        [shapes.Trouble, *answers], ref_template="#/components/schemas/{name}"
    )
    named = dict(zip([shapes.Trouble, *answers], schemas, strict=True))
    paths: dict[str, Schema] = {}
    for rule in current_app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            entry = paths.setdefault(_ARGUMENT.sub(r"{\2}", rule.rule), {})
            entry[method.lower()] = _operation(rule, method, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trainvitals",
            "version": package_version("trainvitals"),
            "description": "Live vital signs of PyTorch training. See docs/api.md.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _shapes(operation: Operation) -> list[type]:
    own = [] if operation.answer is None else [operation.answer]
    own += [] if operation.sent is None else [operation.sent]
    return own + [shape for _, shape in operation.also]


def _operation(rule: Rule, method: str, named: dict[type, Schema]) -> Schema:
    declared = OPERATIONS.get(rule.endpoint)
    known = declared or Operation(
        media=("application/json" if "/api/" in rule.rule else "text/html",)
    )
    changes = method not in ("GET", "HEAD")
    content: Schema = {media: {} for media in known.media}
    if known.answer is not None:
        content = {"application/json": {"schema": named[known.answer]}}
    responses: dict[str, Schema] = {"200": {"description": "Done", "content": content}}
    for status, shape in known.also:
        body = {"application/json": {"schema": named[shape]}}
        responses[str(status)] = {"description": "Not now", "content": body}
    errors = {400, 500, *known.errors} | ({403} if changes and known.body is None else set())
    if rule.endpoint not in ("api.healthz", "api.version", "health.readyz"):
        errors |= {401, 503}
    if "run_id" in rule.arguments and known.body is None:
        errors.add(404)
    for status in sorted(errors - {int(code) for code in responses}):
        body = {"application/json": {"schema": named[shapes.Trouble]}}
        responses[str(status)] = {"description": _MEANINGS[status], "content": body}
    view = current_app.view_functions[rule.endpoint]
    entry: Schema = {
        "operationId": f"{rule.endpoint}.{method.lower()}",
        "summary": (inspect.getdoc(view) or "").partition("\n")[0],
        "tags": ["api" if declared else "pages"],
        "parameters": _parameters(rule, known, changes),
        "responses": responses,
        "security": [{"token": []}, {}],
    }
    if known.body is not None:
        entry["requestBody"] = {"required": True, "content": {known.body: {}}}
    if known.sent is not None:
        content = {"application/json": {"schema": named[known.sent]}}
        entry["requestBody"] = {"required": True, "content": content}
    return entry


def _parameters(rule: Rule, known: Operation, changes: bool) -> list[Schema]:
    found: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for _, name in _ARGUMENT.findall(rule.rule)
    ]
    found += [
        {"name": name, "in": "query", "required": name in known.needed, "schema": schema}
        for name, schema in known.query
    ]
    if changes and known.body is None:
        schema = {"type": "string", "const": "1"}
        found.append({"name": CSRF_HEADER, "in": "header", "required": True, "schema": schema})
    return found
