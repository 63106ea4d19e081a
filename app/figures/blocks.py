"""Layers to blocks by their names: what a large map can fold."""

from collections.abc import Sequence


def block_of(name: str) -> str:
    """The block a layer belongs to: its name up to the first number in it, else without its last part.

    "blocks.3.attn.qkv" is in "blocks.3", "stage2.0.conv1" in "stage2.0", "stem.conv" in "stem"; a layer that has
    no such part of its name, as "fc1" or "0", is its own block.
    """
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ".".join(parts[:-1]) or name


def ordered(names: Sequence[str]) -> list[int]:
    """Positions of `names` with each block's members together, blocks in the order of their first member."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(block_of(name), []).append(index)
    return [index for found in members.values() for index in found]
