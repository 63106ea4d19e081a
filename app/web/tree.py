"""The module tree of a run: sizes, and the health of what is below each module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from trainvitals.app.figures import judged
from trainvitals.app.figures.cells import Line
from trainvitals.app.rules.finding import Finding
from trainvitals.hooks.wire.records import Layout

LEVELS = ("ok", "info", "warning", "critical")


class Node(msgspec.Struct):
    """A module: what it holds, and the worst of it."""

    label: str
    """Its own part of the name."""
    path: str
    layer: str | None = None
    """The layer of that name, None for a module that only groups others."""
    type: str = ""
    shape: tuple[int, ...] = ()
    """Of the first weight, else of the output."""
    parameters: int = 0
    """Elements, of all that is below."""
    frozen: int = 0
    layers: int = 0
    level: str = "ok"
    notes: list[str] = []
    """Titles of the root findings that name this very layer, else what else is wrong with it."""
    children: list[Node] = []

    @property
    def sick(self) -> bool:
        """Whether something in it deserves a look."""
        return self.level in ("warning", "critical")


def grown(
    layouts: Sequence[Layout],
    lines: Sequence[Line],
    picture: judged.Picture | None,
    findings: Sequence[Finding],
) -> Node:
    """The tree of a model, from the names of its layers; modules in forward order."""
    rows = {
        row.name: row for layout in layouts for row in layout.rows if layout.kind == "parameter"
    }
    outputs = {
        row.name: row for layout in layouts for row in layout.rows if layout.kind == "activation"
    }
    ill = _ill(picture)
    root = Node("model", "")
    for line in lines:
        held = [rows[name] for name in line.parameters if name in rows]
        node = _at(root, line.name)
        node.layer, node.type, node.layers = line.name, line.type, 1
        weights = [row for row in held if row.name in line.weights]
        node.shape = next(
            (row.shape for row in weights), outputs[line.name].shape if line.name in outputs else ()
        )
        node.parameters = sum(math.prod(row.shape) for row in held)
        node.frozen = sum(math.prod(row.shape) for row in held if not row.trainable)
        node.level = "warning" if line.name in ill else "ok"
        for item in findings:
            # what only followed shows in the map, where it does
            if item.root and line.name in item.layers and item.state == "firing":
                node.level = max(node.level, item.severity, key=LEVELS.index)
                node.notes.append(item.title)
        if line.name in ill and not node.notes:
            node.notes.append("Outside its healthy band in the newest samples.")
    _rolled_up(root)
    return root


def _ill(picture: judged.Picture | None) -> set[str]:
    """Layers whose newest cells are outside their band."""
    if picture is None or not picture.codes.shape[1]:
        return set()
    now = judged.ill(picture.codes[:, -3:])
    return {line.name for line, flags in zip(picture.lines, now, strict=True) if flags.any()}


def _at(root: Node, name: str) -> Node:
    node = root
    parts = name.split(".") if name else []
    for index, part in enumerate(parts):
        path = ".".join(parts[: index + 1])
        child = next((item for item in node.children if item.path == path), None)
        if child is None:
            child = Node(part, path)
            node.children.append(child)
        node = child
    return node


def _rolled_up(node: Node) -> None:
    for child in node.children:
        _rolled_up(child)
        node.parameters += child.parameters
        node.frozen += child.frozen
        node.layers += child.layers
        node.level = max(node.level, child.level, key=LEVELS.index)
