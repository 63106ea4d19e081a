"""What every part of the store has."""

from trainvitals.app.store.connection import Database


class Part:
    """Methods of the store over its database, one transaction each."""

    def __init__(self, database: Database) -> None:
        self._database = database
