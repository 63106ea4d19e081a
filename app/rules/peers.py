"""Ranks that are parallel in their data: they must hold the same weights, and train on different batches."""

from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import Persistence
from trainvitals.app.rules.thresholds import Count
from trainvitals.hooks.wire.observed import Peer

_MOST_STEPS: Final = 1024
"""Steps of which some ranks have not told yet: those of half a million, as ranks tell of every 500th."""
_MOST_RANKS: Final = 256
"""Ranks that something is remembered of."""


class Meeting(msgspec.Struct):
    """What the ranks of a group tell of one step: compared with the first of them as soon as both have told."""

    first: Peer | None = None
    others: dict[int, Peer] = msgspec.field(default_factory=dict)
    told: int = 0


class PeerRule(Rule):
    """Compares each rank of a group with the first one, step by step.

    Ranks may tell in any order: of two ranks the steps are compared in their order, whoever was ahead.
    """

    attempt: str = ""
    meetings: dict[str, Meeting] = msgspec.field(default_factory=dict)
    """By first rank of the group and step."""
    heard: bool = False
    """Whether a rank has told anything that can be compared."""
    why: str = ""
    """Why not."""
    compared: int = 0

    def on_peer(self, context: Context, position: tuple[str, int, int], peer: Peer) -> None:
        attempt, step, rank = position
        if attempt < self.attempt:
            return
        if attempt > self.attempt:
            self.attempt = attempt
            self.meetings = {}
            self._begin()
        why = self._unfit(peer)
        if why:
            self.why = why
            return
        self.heard = True
        self._meet(step, rank, peer)

    def _meet(self, step: int, rank: int, peer: Peer) -> None:
        key = f"{peer.first}/{step}"
        meeting = self.meetings.get(key)
        if meeting is None:
            if len(self.meetings) >= _MOST_STEPS:
                return
            meeting = self.meetings[key] = Meeting()
        meeting.told += 1
        if rank == peer.first:
            meeting.first = peer
            for other in sorted(meeting.others):
                self._pair(step, other, peer, meeting.others[other])
            meeting.others = {}
        elif meeting.first is not None:
            self._pair(step, rank, meeting.first, peer)
        else:
            meeting.others[rank] = peer
        if meeting.told >= peer.ranks:
            del self.meetings[key]

    def _pair(self, step: int, rank: int, first: Peer, other: Peer) -> None:
        self.compared += 1
        self._compare(step, rank, first, other)

    def _begin(self) -> None:
        """The ranks have started anew."""
        raise NotImplementedError

    def _unfit(self, peer: Peer) -> str:
        """Why what this rank tells cannot be compared; "" when it can."""
        raise NotImplementedError

    def _compare(self, step: int, rank: int, first: Peer, other: Peer) -> None:
        """Compare `rank` with the first one of its group."""
        raise NotImplementedError

    def _waiting(self) -> RuleState | None:
        """The state while nothing was compared; None once something was."""
        if self.compared:
            return None
        if self.heard:
            return self._state(
                "not enough data", "Only one of several ranks has told of it so far."
            )
        return self._state(
            "not applicable",
            self.why
            or "One process; or several, none of which calls the model through DistributedDataParallel.",
        )


class Apart(msgspec.Struct):
    """A rank whose weights differ from those of the first one."""

    first: int
    held: Persistence = msgspec.field(default_factory=Persistence)
    parts: list[int] = msgspec.field(default_factory=list)
    """Places of the parts that differed in the first look that showed it."""
    of: int = 0


class RankParamsDiverged(PeerRule):
    """Ranks that should hold the same weights hold different ones.

    Formula: the checksum of the trainable weights of a rank, over all bits, is not that of the first rank of its group,
    in `k` looks in a row; the looks are steps 0, 1, 2, 4, 8 and so on, and every 500th, on all ranks. Default: replicas
    that start from the same weights and take the same averaged gradients stay equal to the bit, so one bit is a
    difference; two looks, as a loop may mend its weights between two steps. Applies to: models called through
    DistributedDataParallel. Guards: shards, frozen weights, buffers, weights that DistributedDataParallel is told to
    ignore; hooks of one's own and local SGD, which exchange something else than averaged gradients; ranks on
    different devices, which round differently. Guide tips: 80. Sources: guide C; PyTorch's documentation of
    DistributedDataParallel.
    """

    id: ClassVar[str] = "rank-params-diverged"
    k: ClassVar[Count] = 2
    """Looks in a row: replicas that differ once may be made equal before their next step, for good they may not."""
    remedy: ClassVar[str] = (
        "Let every step's gradients be averaged: leave no_sync() before the last backward pass of a step, call the "
        "wrapped model and not model.module, and change, add or unfreeze weights before DistributedDataParallel is "
        "made, or on all ranks alike. Then load the weights of one rank on all. False alarm: weights that are averaged "
        "now and then by design (local SGD)."
    )

    names: dict[int, list[str]] = msgspec.field(default_factory=dict)
    """First rank of a group to its layers."""
    apart: dict[int, Apart] = msgspec.field(default_factory=dict)
    mixed: bool = False
    """Whether ranks compute on different devices."""

    def _begin(self) -> None:
        self.names, self.apart, self.mixed = {}, {}, False

    def _unfit(self, peer: Peer) -> str:
        return peer.why or ("" if peer.weights else "The model has no weights that are trained.")

    def _meet(self, step: int, rank: int, peer: Peer) -> None:
        if rank == peer.first and peer.layers and len(self.names) < _MOST_RANKS:
            self.names[rank] = peer.layers
        super()._meet(step, rank, msgspec.structs.replace(peer, layers=[], batch=""))

    def _compare(self, step: int, rank: int, first: Peer, other: Peer) -> None:
        if first.device != other.device:
            self.mixed = True
            return
        differs = first.weights != other.weights
        apart = self.apart.get(rank)
        if apart is None:
            if not differs or len(self.apart) >= _MOST_RANKS:
                return
            apart = self.apart[rank] = Apart(first.first)
        if differs and (apart.held.calm or not apart.held.count):
            apart.parts, apart.of = _differing(first.weights, other.weights)
        apart.held.update(step, differs, calm=not differs, k=self.k, n=self.k, calm_n=1)

    def findings(self, context: Context) -> list[Finding]:
        found = {rank: apart for rank, apart in self.apart.items() if apart.held.fired}
        if not found or self.mixed:
            return []
        rank = min(
            found, key=lambda rank: (found[rank].held.resolved, found[rank].held.onset, rank)
        )
        apart = found[rank]
        held, ranks = apart.held, sorted(found)
        names = self.names.get(apart.first, [])
        layers = [names[place] for place in apart.parts if place < len(names)]
        others = f", and {len(ranks) - 1} more ranks" if len(ranks) > 1 else ""
        return [
            self._report(
                severity="critical",
                during=held.span,
                layers=layers,
                title=f"The weights of rank {rank}{others} differ from those of rank {apart.first} "
                f"since step {held.onset}",
                seen=f"{len(apart.parts)} of {apart.of} checksums of weights differ"
                + (f", the first of {layers[0] or 'the model'}" if layers else ""),
                expected="The same weights on all ranks, to the bit",
                remedy=self.remedy,
                diff="- loss = criterion(model.module(x), y)\n+ loss = criterion(model(x), y)",
                ranks=ranks[:50],
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if self.mixed:
            return self._state(
                "not applicable", "The ranks compute on different devices, which round differently."
            )
        return self._waiting() or self._state(
            "ok", f"Equal to the bit in {self.compared} comparisons."
        )


def _differing(one: bytes, two: bytes) -> tuple[list[int], int]:
    """Places of the checksums that differ, and how many there are."""
    if len(one) != len(two):
        return [], max(len(one), len(two)) // 4
    differ = np.frombuffer(one, "<u4") != np.frombuffer(two, "<u4")
    return np.flatnonzero(differ).tolist(), len(differ)


class Alike(msgspec.Struct):
    """A rank that was seen with a batch of the first one."""

    first: int
    held: Persistence = msgspec.field(default_factory=Persistence)
    batches: list[str] = msgspec.field(default_factory=list)
    """The last batches that both had."""


class RankDuplicateData(PeerRule):
    """Two ranks train on the same batches: what one of them does adds nothing.

    Formula: the checksum of a rank's inputs is that of the first rank of its group, in `k` looks in a row, each at
    another batch; the looks are steps 0, 1, 2, 4, 8 and so on, and every 500th. Default: different samples agree by
    chance never, a batch of few values now and then. Applies to: models called through DistributedDataParallel, or
    sharded by FSDP2 over a mesh of one dimension: their ranks are parallel in their data by construction. Guards:
    tensor, sequence and pipeline parallel ranks share batches by design, but not within such a group; the same batch
    at every step is `repeated-batch`. Guide tips: 80. Sources: guide C; PyTorch's documentation of DistributedSampler.
    """

    id: ClassVar[str] = "rank-duplicate-data"
    k: ClassVar[Count] = 3
    """Different batches in a row: one or two may agree by chance where samples have few values."""
    remedy: ClassVar[str] = (
        "Give the DataLoader a DistributedSampler (or let Accelerate or Lightning prepare it), or split the samples by "
        "rank; with an iterable data set, by rank and worker. Seed what draws samples with the rank. False alarm: the "
        "same batch on all ranks on purpose, to compare them."
    )

    alike: dict[int, Alike] = msgspec.field(default_factory=dict)

    def _begin(self) -> None:
        self.alike = {}

    def _unfit(self, peer: Peer) -> str:
        return "" if peer.batch else "The inputs of the model are no tensors."

    def _meet(self, step: int, rank: int, peer: Peer) -> None:
        super()._meet(step, rank, Peer(first=peer.first, ranks=peer.ranks, batch=peer.batch))

    def _compare(self, step: int, rank: int, first: Peer, other: Peer) -> None:
        same = first.batch == other.batch
        alike = self.alike.get(rank)
        if alike is None:
            if not same or len(self.alike) >= _MOST_RANKS:
                return
            alike = self.alike[rank] = Alike(first.first)
        if same and first.batch in alike.batches:
            return  # a batch that comes again proves nothing new
        alike.batches = [*alike.batches, first.batch][-self.k :] if same else []
        alike.held.update(step, same, calm=not same, k=self.k, n=self.k)

    def findings(self, context: Context) -> list[Finding]:
        found = {rank: alike for rank, alike in self.alike.items() if alike.held.fired}
        if not found:
            return []
        rank = min(
            found, key=lambda rank: (found[rank].held.resolved, found[rank].held.onset, rank)
        )
        alike, ranks = found[rank], sorted(found)
        others = f", and {len(ranks) - 1} more ranks" if len(ranks) > 1 else ""
        return [
            self._report(
                severity="critical",
                during=alike.held.span,
                where="the training's data",
                title=f"Rank {rank}{others} trains on the batches of rank {alike.first}, "
                f"since step {alike.held.onset}",
                seen=f"Equal checksums of the inputs in {self.k} looks in a row, at different batches",
                expected="Other samples on each rank",
                remedy=self.remedy,
                diff="- DataLoader(data, batch_size=64, shuffle=True)\n"
                "+ DataLoader(data, batch_size=64, sampler=DistributedSampler(data))",
                ranks=ranks[:50],
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        return self._waiting() or self._state(
            "ok", f"Other batches on each rank in {self.compared} comparisons."
        )
