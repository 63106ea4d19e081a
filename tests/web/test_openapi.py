"""`/api/v1/openapi.json` has every route, and what it says of each is what the server answers."""

import json
import re
import shutil
import time

import jsonschema
import pytest

from trainvitals.app.store import Store
from trainvitals.app.store.types import AlertRow
from trainvitals.app.web.openapi import OPERATIONS
from trainvitals.hooks.wire.codec import encode_batch

HEADER = {"X-Trainvitals": "1"}
BATCH = "application/vnd.trainvitals.batch"
PAGES = {
    "pages",
    "login",
    "figures_api",
    "live",
    "runpages",
    "alertpages",
    "compare.page",
    "report.report",
}
"""Pages, and blueprints of them and of what they draw, whose answers have no fixed shape."""


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture(scope="module")
def database(tmp_path_factory, made_run, fill, batch):
    """A file with a judged run "sick", a delivery, and a run "run-1"."""
    path = tmp_path_factory.mktemp("database") / "trainvitals.db"
    twin = made_run("twin", steps=60)
    sick = made_run("sick", steps=380, sick=True).end("failed", "NaN")
    fill(path, twin, sick)
    with Store.open(path) as store:
        store.commit_evaluation(
            "sick", store_lease(store), {}, None, store.findings("sick"), [row()], 1e9
        )
        store.mark_failed("sick/x/1/open", "slack", 1e9, "refused", 1e9 + 60)
        store.append(batch(count=12), 1e9)
    return path


@pytest.fixture
def site(app, tmp_path, database):
    """A client of a server whose database is a copy."""
    shutil.copyfile(database, tmp_path / "trainvitals.db")
    return app.test_client()


@pytest.fixture(scope="module")
def reader(database, open_app):
    """A client of a server that is only read from."""
    return open_app(database).test_client()


@pytest.fixture(scope="module")
def stranger(database, open_app):
    """A client of the same that does not have the token for reading."""
    return open_app(database, read_token="secret").test_client()


def store_lease(store):
    with store._database.write() as connection:
        connection.execute("UPDATE streams SET read = 0")
    assert "sick" in store.claim("me", 30, 2e9)
    return "me"


def row():
    return AlertRow(
        id="sick/x/1/open", run="sick", group="x", kind="open", created=1e9, not_before=1e9
    )


@pytest.fixture(scope="module")
def spec(reader):
    return reader.get("/api/v1/openapi.json").get_json()


def strict(schema):
    """The same schema, but that no object may have further keys."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema:
        closed["additionalProperties"] = False
    return closed


def check(spec, path, method, reply, *, exact=True):
    """Compare an answer with what the description says of it."""
    documented = spec["paths"][path][method]["responses"]
    assert str(reply.status_code) in documented, reply.text
    content = documented[str(reply.status_code)]["content"]
    assert reply.mimetype in content
    schema = content[reply.mimetype].get("schema")
    if schema is not None:
        components = {"components": strict(spec["components"]) if exact else spec["components"]}
        jsonschema.validate(json.loads(reply.data), schema | components)


def test_it_has_every_route_and_no_other(app, spec):
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path in spec["paths"] for method in spec["paths"][path]} == routes
    assert len(routes) > 20


def test_every_route_of_the_api_has_its_answer_described(app):
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()} - {"static"}
    own = {name for name in endpoints if PAGES.isdisjoint({name, name.partition(".")[0]})}
    assert own == set(OPERATIONS), "describe a new route in app/web/openapi.py"


def test_every_operation_says_what_it_is_for(spec):
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            assert path.startswith("/static") or operation["summary"].endswith("."), path


def test_it_is_sound_openapi(spec):
    assert spec["openapi"].startswith("3.1")
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            inside = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert inside == set(re.findall(r"{(\w+)}", path))
            for answer in operation["responses"].values():
                for media in answer["content"].values():
                    jsonschema.Draft202012Validator.check_schema(media.get("schema", {}))
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(spec)))
    assert references <= set(spec["components"]["schemas"])


READS = [
    ("/healthz", "/healthz"),
    ("/version", "/version"),
    ("/metrics", "/metrics"),
    ("/api/v1/openapi.json", "/api/v1/openapi.json"),
    ("/api/v1/runs", "/api/v1/runs?limit=5"),
    ("/api/v1/runs", "/api/v1/runs?shelf=deleted"),
    ("/api/v1/runs/{run_id}", "/api/v1/runs/sick"),
    ("/api/v1/runs/{run_id}", "/api/v1/runs/run-1"),
    ("/api/v1/runs/{run_id}/findings", "/api/v1/runs/sick/findings"),
    ("/api/v1/runs/{run_id}/states", "/api/v1/runs/sick/states"),
    ("/api/v1/runs/{run_id}/events", "/api/v1/runs/sick/events"),
    ("/api/v1/runs/{run_id}/series", "/api/v1/runs/sick/series?names=loss,tv/lr/0&points=9"),
    (
        "/api/v1/runs/{run_id}/matrix",
        "/api/v1/runs/sick/matrix?kind=activation&statistic=std&buckets=7",
    ),
    ("/api/v1/runs/{run_id}/export", "/api/v1/runs/sick/export"),
    ("/api/v1/runs/{run_id}/export", "/api/v1/runs/sick/export?what=events&format=jsonl"),
    ("/api/v1/runs/{run_id}/export", "/api/v1/runs/sick/export?what=findings&format=parquet"),
    ("/api/v1/alerts", "/api/v1/alerts?run=sick"),
    ("/api/v1/policy", "/api/v1/policy"),
    ("/api/v1/runs/{run_id}/verdict", "/api/v1/runs/sick/verdict"),
    ("/api/v1/overview", "/api/v1/overview"),
    ("/api/v1/overview", "/api/v1/overview?since=0&shelf=deleted"),
    ("/api/v1/channels", "/api/v1/channels"),
    ("/api/v1/compare/curves", "/api/v1/compare/curves?runs=sick,run-1&name=loss"),
    ("/api/v1/compare/layers", "/api/v1/compare/layers?runs=sick,twin&statistic=std"),
    ("/api/v1/runs/{run_id}/chart.svg", "/api/v1/runs/sick/chart.svg?chart=vitals&statistic=std"),
]


@pytest.mark.parametrize(("path", "address"), READS)
def test_an_answer_has_the_shape_that_is_described(reader, spec, path, address):
    reply = reader.get(address)
    assert reply.status_code == 200
    check(spec, path, "get", reply)


def test_readiness_has_its_shape_when_all_is_well_and_when_not(site, app, spec, tmp_path):
    check(spec, "/readyz", "get", site.get("/readyz"))
    assert site.get("/readyz").status_code == 503
    with Store.open(tmp_path / "trainvitals.db") as store:
        store.sign("evaluator", 4e9)
    reply = site.get("/readyz")
    check(spec, "/readyz", "get", reply)
    assert reply.status_code == 200


def test_what_is_done_with_a_finding_answers_as_described(site, spec):
    findings = site.get("/api/v1/runs/sick/findings").get_json()["findings"]
    root, other = (
        next(f["id"] for f in findings if f["root"] is is_root) for is_root in (True, False)
    )
    until = {"until": time.time() + 3600}
    for what, method, body in (
        ("", "get", None),
        ("/acknowledge", "post", None),
        ("/unacknowledge", "post", None),
        ("/mute", "post", until),
        ("/unmute", "post", None),
    ):
        path = "/api/v1/findings/{wanted}" + what
        for wanted, status in ((root, 200), ("sick.0", 404)):
            address = path.format(wanted=wanted)
            reply = site.open(address, method=method.upper(), headers=HEADER, json=body)
            assert reply.status_code == status
            check(spec, path, method, reply)
    sent = spec["paths"]["/api/v1/findings/{wanted}/mute"]["post"]["requestBody"]["content"]
    jsonschema.validate(
        until, sent["application/json"]["schema"] | {"components": spec["components"]}
    )
    path = "/api/v1/findings/{wanted}/preview/{key}"
    for wanted, key, status in (
        (root, "slack", 200),
        (other, "slack", 409),
        (root, "email", 404),
        ("sick.0", "slack", 404),
    ):
        reply = site.get(path.format(wanted=wanted, key=key))
        assert reply.status_code == status
        check(spec, path, "get", reply)


def test_a_channel_that_is_tried_answers_as_described(make_app, spec):
    client = make_app(slack_webhook="http://127.0.0.1:9/hook").test_client()
    for key, status in (("slack", 200), ("email", 404)):
        reply = client.post(f"/api/v1/channels/{key}/test", headers=HEADER)
        assert reply.status_code == status
        check(spec, "/api/v1/channels/{key}/test", "post", reply)


def test_changes_answer_as_described(site, spec, batch):
    def change(what, method="post"):
        path = "/api/v1/runs/{run_id}" + what
        reply = site.open(path.format(run_id="run-1"), method=method.upper(), headers=HEADER)
        check(spec, path, method, reply)
        return reply.status_code

    assert [change("/archive"), change("/archive")] == [200, 409]
    assert [change("/unarchive"), change("/unarchive")] == [200, 409]
    assert [change("", "delete"), change("", "delete")] == [200, 404]
    assert [change("/restore"), change("/restore")] == [200, 404]
    path = "/api/v1/runs/{run_id}/batches"
    for made, status in ((batch(first=12), 200), (batch(first=90), 409)):
        reply = site.post(path.format(run_id="run-1"), data=encode_batch(made), content_type=BATCH)
        assert reply.status_code == status
        check(spec, path, "post", reply, exact=status == 200)
    reply = site.post(path.format(run_id="run-1"), data=b"x", content_type="text/plain")
    assert reply.status_code == 415
    check(spec, path, "post", reply)


@pytest.mark.parametrize(("path", "address"), READS)
def test_every_documented_refusal_of_a_read_is_real(reader, stranger, spec, path, address):
    documented = set(spec["paths"][path]["get"]["responses"])
    bare = address.partition("?")[0]
    seen = {"400": reader.get(address, headers={"Host": "evil.example"})}
    if "404" in documented:
        seen["404"] = reader.get(address.replace("/sick", "/nope").replace("/run-1", "/nope"))
    if "401" in documented:
        seen["401"] = stranger.get(address)
    for name in [p["name"] for p in spec["paths"][path]["get"]["parameters"] if p["in"] == "query"]:
        if name in (
            *("limit", "shelf", "points", "start", "kind", "what", "format", "since"),
            *("runs", "smooth", "scale"),
        ):
            wrong = f"{bare}?names=loss&kind=activation&statistic=std"
            wrong = wrong.replace(f"{name}=activation", "") + f"&{name}="
            wrong += "" if name == "runs" else "-5"
            assert reader.get(wrong).status_code == 400, name
    for status, reply in seen.items():
        assert str(reply.status_code) == status
        check(spec, path, "get", reply)


def test_a_change_without_its_header_is_refused_as_described(site, spec):
    for path, method in (
        ("/api/v1/runs/{run_id}", "delete"),
        ("/api/v1/runs/{run_id}/restore", "post"),
        ("/api/v1/runs/{run_id}/archive", "post"),
        ("/api/v1/runs/{run_id}/unarchive", "post"),
        ("/api/v1/findings/{wanted}/acknowledge", "post"),
        ("/api/v1/findings/{wanted}/mute", "post"),
        ("/api/v1/channels/{key}/test", "post"),
    ):
        address = path.format(run_id="run-1", wanted="sick.0", key="slack")
        reply = site.open(address, method=method.upper())
        assert reply.status_code == 403
        check(spec, path, method, reply)
        needed = spec["paths"][path][method]["parameters"]
        assert {"X-Trainvitals"} == {p["name"] for p in needed if p["in"] == "header"}
