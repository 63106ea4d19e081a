"""The policy as the API shows it, and the verdict that a training asks for."""

import msgspec
import pytest

from trainvitals.app.evaluator import Evaluator
from trainvitals.app.rules import RULES
from trainvitals.app.settings import Settings
from trainvitals.hooks.wire.records import Start, Step
from trainvitals.hooks.wire.verdict import Verdict

INFO = '[rules.grad-not-zeroed]\nseverity = "info"\n'


@pytest.fixture
def file(tmp_path):
    return tmp_path / "trainvitals.toml"


@pytest.fixture
def get(make_app, file):
    client = make_app(rules=file).test_client()
    return lambda path: client.get(path)


@pytest.fixture
def evaluate(tmp_path, file, send):
    """Send a run whose gradients are carried over, and judge it."""

    def run():
        scalars = {"loss": 1.0, "tv/grad_carried": 1.0}
        records = [Start(seq=0, time=1e9, project="p", name="n")]
        records += [Step(seq=n, time=1e9, step=n - 1, scalars=scalars) for n in range(1, 40)]
        send(records=records)
        path = tmp_path / "trainvitals.db"
        evaluator = Evaluator(path, Settings(database=path, rules=file))
        while evaluator.evaluate(10.0):
            pass
        evaluator.close()

    return run


def test_without_a_file_the_defaults_are_in_force(get):
    told = get("/api/v1/policy").json
    assert (told["state"], told["text"], told["in_force"]) == ("missing", "", "")
    assert [rule["id"] for rule in told["rules"]] == [rule.id for rule in RULES]
    assert all(rule["enabled"] and not rule["changes"] for rule in told["rules"])


def test_a_right_file_is_shown_with_what_it_makes_of_the_rules(get, file):
    file.write_text(INFO + "[rules.update-ratio-high]\nratio = 0.25\n")
    told = get("/api/v1/policy").json
    assert told["state"] == "right" and told["problems"] == [] and told["in_force"]
    rules = {rule["id"]: rule for rule in told["rules"]}
    assert rules["grad-not-zeroed"]["changes"] == ["always info"]
    values = {item["name"]: item for item in rules["update-ratio-high"]["thresholds"]}
    assert (values["ratio"]["value"], values["ratio"]["default"]) == (0.25, 0.1)


def test_a_wrong_file_is_shown_with_its_problems_and_the_last_good_one(get, file, evaluate):
    file.write_text(INFO)
    evaluate()
    good = get("/api/v1/policy").json["in_force"]
    file.write_text("[rules.none]\n")
    told = get("/api/v1/policy").json
    assert (told["state"], told["text"], told["in_force"]) == ("wrong", "[rules.none]\n", good)
    assert told["problems"][0]["line"] == 1 and "rules.none" in told["problems"][0]["key"]


def test_reading_the_policy_needs_the_token_that_reading_needs(make_app):
    assert make_app(read_token="secret").test_client().get("/api/v1/policy").status_code == 401


def test_the_verdict_holds_what_is_open(get, evaluate):
    evaluate()
    answer = get("/api/v1/runs/run-1/verdict")
    (finding,) = msgspec.json.decode(answer.data, type=Verdict).findings
    assert (finding.rule, finding.severity, finding.step) == ("grad-not-zeroed", "critical", 0)
    assert finding.title and finding.remedy


def test_the_verdict_leaves_out_what_is_acknowledged(get, file, evaluate):
    file.write_text('[[acknowledge]]\nrule = "grad-not-zeroed"\nuntil = 2999-01-01\n')
    evaluate()
    assert get("/api/v1/runs/run-1/verdict").json == {"findings": []}
    assert len(get("/api/v1/runs/run-1/findings").json["findings"]) == 1


def test_a_run_that_is_not_there_has_no_verdict(get):
    assert get("/api/v1/runs/none/verdict").status_code == 404
