"""What is done with each call of a module: noted for the guard, and at samples measured."""

from collections.abc import Callable

from trainvitals.hooks.accounts import Accounts
from trainvitals.hooks.call import Call
from trainvitals.hooks.criteria import Criteria
from trainvitals.hooks.interception import ignore, without_values
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.quiet import Quiet
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.slim import SlimModules
from trainvitals.hooks.taps import Taps


class CallWatch:
    """Has a function for each kind of step, to be given to the interception. They never raise."""

    def __init__(
        self,
        registry: Registry,
        quiet: Quiet,
        criteria: Criteria,
        taps: Taps,
        accounts: Accounts,
        problems: Problems,
    ) -> None:
        self._registry = registry
        self._quiet = quiet
        self._criteria = criteria
        self._taps = taps
        self._accounts = accounts
        self._problems = problems
        self.count = 0
        """Calls in the last sampled step, as many as are noted in one that is not."""
        self.in_rows = 0
        """Calls in it that are not noted in one that is not sampled, as they belong to a row."""

    def in_quiet_step(self) -> tuple[Callable[[Call], None], SlimModules]:
        """Between looks: the guard keeps the call, where looking at it later costs no wait."""
        take = self._quiet.calls.append if self._registry.on_cpu else ignore
        return take, self._registry.slim()

    def in_glance(self) -> tuple[Callable[[Call], None], SlimModules]:
        """In a step that is glanced at the loss is read besides, if it is a module that was named."""
        return (self._see_loss, self._registry.slim()) if self._criteria else self.in_quiet_step()

    def in_sample(self) -> tuple[Callable[[Call], None], SlimModules]:
        """In a sampled step the statistics of the output are taken."""
        self.count = self.in_rows = 0
        return self._see, {}

    def _see(self, call: Call) -> None:
        if without_values():
            return
        self._accounts.enter()
        if call[0] in self._registry.in_rows:
            self.in_rows += 1
        else:
            self.count += 1
        if self._registry.on_cpu:
            self._quiet.calls.append(call)
        module = call[0]
        name = self._registry.name_of(module)
        try:
            if name is None:
                self._criteria.see(call)
            else:
                self._registry.saw_call(name)
                if module in self._registry.wanted:
                    self._taps.see(module, name, call[3])
        except Exception as error:
            self._problems.caught(f"taking statistics of {name!r}", error)
        self._accounts.leave()

    def _see_loss(self, call: Call) -> None:
        if self._registry.on_cpu:
            self._quiet.calls.append(call)
        if without_values():
            return
        try:
            self._criteria.see(call)
        except Exception as error:
            self._problems.caught("reading the loss", error)
