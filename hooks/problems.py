"""Errors of our own: counted, said once, shown on the dashboard, never raised into the training."""

from collections.abc import Callable

from trainvitals.hooks.sender import say
from trainvitals.hooks.settings import clean_text

_MAX_EVENTS = 20


class Problems:
    """Where every part of the hooks reports what went wrong inside it."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        """`emit` sends a message as an event of kind "monitor"."""
        self._emit = emit
        self._said: set[str] = set()
        self.strict = False
        """Raise instead, for tests and for people who look for a fault."""
        self.count = 0

    def caught(self, where: str, error: Exception) -> None:
        """Report an exception; call it from the handler. Raises it again when strict.

        The handlers that call this catch every Exception: they stand where the training calls our work, on models and
        tensors of any kind, and what goes wrong in it must end there.
        """
        self.note(f"{where} failed: {type(error).__name__}: {error}. Training goes on.")
        if self.strict:
            raise error

    def note(self, message: str) -> None:
        """Report something that is no exception."""
        self.count += 1
        if message in self._said or len(self._said) >= _MAX_EVENTS:
            return
        self._said.add(message)
        say(message)
        self._emit(clean_text(message))
