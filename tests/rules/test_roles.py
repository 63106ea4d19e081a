"""Roles of parameters and the mode of a run that a policy says, in place of those that are inferred."""

from types import SimpleNamespace

import pytest

from trainvitals.app.rules import RULES
from trainvitals.app.rules.context import Group
from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.policytext import PolicyError, parse
from trainvitals.hooks.wire.observed import Facts, Modes, Observed
from trainvitals.hooks.wire.records import Layout, Row, Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)
NAMES = ("embed.codes", "body.mix", "out", "auxiliary")


def layout():
    rows = [
        Row(name=f"{name}.weight", layer=name, type="Linear", shape=(8, 8), trainable=True)
        for name in NAMES
    ]
    return Layout(seq=1, time=1.0, step=0, group=1, kind="parameter", rows=rows, columns=[])


def roles(said):
    group = Group(layout(), said)
    return {
        row.layer: ("head" if head else "matrix" if matrix else "other")
        for row, matrix, head in zip(group.rows, group.matrix, group.head, strict=True)
    }


def test_without_a_word_the_last_matrix_is_the_head():
    assert list(roles({}).values()) == ["matrix", "matrix", "matrix", "head"]


def test_said_roles_replace_those_that_are_inferred():
    said = {"out": "head", "*.codes": "other", "embed.*": "matrix"}
    assert list(roles(said).values()) == ["other", "matrix", "head", "matrix"]


def test_the_inferred_head_can_be_said_to_be_none():
    assert list(roles({"auxiliary": "other"}).values()) == ["matrix", "matrix", "matrix", "other"]


def severity(text):
    """Of training in evaluation mode, with batch norm alone, from a training that looks like one from scratch."""
    engine = Engine(policy=parse(text, RULES))
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    modes = Modes(evaluating=1, affine_evaluating=1, names=["bn"])
    seen = Observed(facts=Facts(mode="scratch"), modes=modes)
    engine.feed(STREAM, Step(seq=1, time=1.0, step=0, scalars={}, observed=seen))
    restored = Engine.load(engine.save())
    return {one.rule: one.severity for one in restored.findings()}["train-mode-missing"]


def test_the_mode_of_a_run_can_be_said():
    assert (severity(""), severity('mode = "fine-tuning"')) == ("warning", "info")


def test_what_is_said_has_a_digest():
    assert parse('mode = "adapter"', RULES).digest
    assert parse('[roles]\nout = "head"', RULES).digest


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ('[roles]\n"out" = "haed"', "roles.out", 2),
        ("roles = 3", "roles", 1),
        ('mode = "finetuning"', "mode", 1),
    ],
)
def test_a_wrong_role_or_mode_is_told_with_its_line(text, key, line):
    with pytest.raises(PolicyError) as raised:
        parse(text, RULES)
    assert [(problem.key, problem.line) for problem in raised.value.problems] == [(key, line)]
