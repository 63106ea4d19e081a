"""The file itself: what is removed from it, how much it holds, whether it can be written."""

from collections.abc import Iterator
from pathlib import Path

from trainvitals.app.retention import Policy
from trainvitals.app.store import census, erase, retention, signs, upkeep
from trainvitals.app.store.migrations import MIGRATIONS
from trainvitals.app.store.parts.base import Part
from trainvitals.app.store.types import Census, Sign


class Keeping(Part):
    """The file itself: what is removed from it, how much it holds, whether it can be written."""

    def removals(self, policy: Policy, now: float) -> list[retention.Removal]:
        """What `policy` removes at `now` (Unix seconds), in the order in which to do it."""
        with self._database.read() as connection:
            return retention.plan(connection, policy, now)

    def remove(self, removal: retention.Removal, now: float) -> Iterator[None]:
        """Do one of `removals`, one short transaction a step; pause between steps, so that others may write."""
        return retention.carry_out(self._database, removal, now)

    def shrink(self) -> Iterator[None]:
        """Give free room in the file back to the file system, in steps as `remove`."""
        return erase.shrink(self._database)

    def sign(self, name: str, now: float, **body: object) -> None:
        """Note that a part of the server was at work at `now` (Unix seconds), and what it has to say."""
        with self._database.write() as connection:
            signs.give(connection, name, now, body)

    def signs(self) -> dict[str, Sign]:
        """The last sign of each part of the server that ever gave one."""
        with self._database.read() as connection:
            return signs.read(connection)

    def census(self, now: float) -> Census:
        """How much there is of everything at `now` (Unix seconds)."""
        with self._database.read() as connection:
            return census.census(connection, now)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def schema(self) -> int:
        """Version of the schema that this release has."""
        return len(MIGRATIONS)

    def probe(self) -> None:
        """Raise StoreError unless the file can be written."""
        upkeep.probe(self._database.path)

    def info(self) -> upkeep.Info:
        """What the file holds."""
        with self._database.read() as connection:
            return upkeep.info(self._database, connection)

    def vacuum(self) -> None:
        """Write the file anew without free room. Whoever wants to write has to wait for the end of it."""
        upkeep.vacuum(self._database)
