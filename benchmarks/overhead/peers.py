"""What is compared: trainvitals, a hand-written collector, wandb and TensorBoard, behind one face."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from benchmarks.overhead.models import Training
from benchmarks.overhead.plain import PlainCollector

INTERVAL = 10
"""Steps from one sample to the next where full statistics are compared."""


class Tool:
    """Nothing at all; what the others fill in. Libraries are imported in `start`, to count as theirs."""

    needs = ""
    """The package that must be installed."""

    def start(self, training: Training, folder: Path) -> None:
        """Attach to a training and write below `folder`."""

    def paused(self) -> AbstractContextManager[object]:
        """While another training runs in this process."""
        return nullcontext()

    def move(self, training: Training) -> None:
        """Leave the training that it is attached to, and go on with its twin, which is as far."""
        raise NotImplementedError

    def after_step(self, loss: Tensor) -> None:
        """What the training's loop calls after each step."""

    def close(self) -> None:
        """What the script calls in the end: everything is on disk when it returns."""

    def stop(self) -> None:
        """End what would otherwise end with the process; not counted as closing."""

    def samples(self, folder: Path) -> list[int]:
        """Steps whose layer statistics were recorded, as far as that can be told."""
        return []

    def reported(self, folder: Path) -> float | None:
        """The share of the time that the tool says it took."""
        return None


class Ours(Tool):
    """trainvitals, recording to its spool."""

    def __init__(self, logs: bool = False, **options: Any) -> None:
        """`logs`: also log the loss at every step; `options` go to `tv.watch`."""
        self._logs = logs
        self._options = options

    def start(self, training: Training, folder: Path) -> None:
        import trainvitals.hooks as tv

        self._run = tv.init(project="bench", mode="offline", dir=folder)
        self._run.watch(training.model, training.optimizer, **self._options)

    def move(self, training: Training) -> None:
        self._run.detach()
        self._run.watch(training.model, training.optimizer, **self._options)

    def paused(self) -> AbstractContextManager[object]:
        return self._run.paused()

    def after_step(self, loss: Tensor) -> None:
        if self._logs:
            self._run.log({"loss": loss})

    def close(self) -> None:
        self._run.finish()

    def samples(self, folder: Path) -> list[int]:
        return sorted({record.step for record in _steps(folder) if record.samples})

    def reported(self, folder: Path) -> float | None:
        """The newest `tv/overhead`: the share of the run so far."""
        shares = [r.scalars["tv/overhead"] for r in _steps(folder) if "tv/overhead" in r.scalars]
        return shares[-1] if shares else None


class WatchAlone(Ours):
    """trainvitals with one sample, no budget for glances and no looks at the loop: what watches every step is left."""

    def __init__(self) -> None:
        super().__init__(interval=10**9, overhead=1e-9)

    def start(self, training: Training, folder: Path) -> None:
        from trainvitals.hooks import watching
        from trainvitals.hooks.observe.looks import NoLooks

        with patch.object(watching, "looks_of", lambda *given: NoLooks()):
            super().start(training, folder)


def _steps(folder: Path) -> Iterator[Any]:
    """The `Step` records of the only run below `folder`, one for each row of scalars."""
    from trainvitals.hooks.spool import find_streams, read_stream
    from trainvitals.hooks.wire.records import Step
    from trainvitals.hooks.wire.scalars import expand

    for stream in find_streams(folder / ".trainvitals"):
        for record in read_stream(stream):
            yield from (step for step in expand(record) if isinstance(step, Step))


class Plain(Tool):
    """The hand-written collector."""

    def start(self, training: Training, folder: Path) -> None:
        file = folder / "statistics.jsonl"
        self._collector = PlainCollector(training.model, training.optimizer, file, INTERVAL)

    def after_step(self, loss: Tensor) -> None:
        self._collector.log(loss)

    def close(self) -> None:
        self._collector.close()


class WandB(Tool):
    """`wandb.watch(log="all")`, offline. It sends its histograms with the next `wandb.log`."""

    needs = "wandb"

    def start(self, training: Training, folder: Path) -> None:
        places = ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR")
        os.environ.update(dict.fromkeys(places, str(folder)))
        os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
        import wandb

        self._wandb = wandb
        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(project="bench", mode="offline", dir=str(folder), settings=settings)
        self._run.watch(training.model, log="all", log_freq=INTERVAL)

    def after_step(self, loss: Tensor) -> None:
        self._run.log({"loss": loss})

    def close(self) -> None:
        self._run.finish()

    def stop(self) -> None:
        self._wandb.teardown()


class TensorBoard(Tool):
    """`SummaryWriter.add_histogram` of weights, gradients and outputs; it records no other statistic."""

    needs = "tensorboard"

    def start(self, training: Training, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._step = 0
        self._seen: set[str] = set()
        self._parameters = dict(training.model.named_parameters())
        self._handles = [
            module.register_forward_hook(self._hook(name))
            for name, module in training.model.named_modules()
            if not list(module.children())
        ]

    def _hook(self, name: str) -> Any:
        def after_forward(module: nn.Module, args: Any, output: Any) -> None:
            if self._step % INTERVAL == 0 and name not in self._seen:
                self._seen.add(name)
                self._writer.add_histogram(f"activation/{name}", output, self._step)

        return after_forward

    def after_step(self, loss: Tensor) -> None:
        self._writer.add_scalar("loss", loss.item(), self._step)
        if self._step % INTERVAL == 0:
            for name, parameter in self._parameters.items():
                self._writer.add_histogram(f"weight/{name}", parameter, self._step)
                if parameter.grad is not None:
                    self._writer.add_histogram(f"gradient/{name}", parameter.grad, self._step)
        self._seen.clear()
        self._step += 1

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._writer.close()


TOOLS: dict[str, Callable[[], Tool]] = {
    "nothing": Tool,
    "default": Ours,
    "default + log": lambda: Ours(logs=True),
    "ours": lambda: Ours(logs=True, interval=INTERVAL),
    "plain": Plain,
    "wandb": WandB,
    "tensorboard": TensorBoard,
    "non-finite": WatchAlone,
}
"""By the name that the report uses. Those of full statistics all record the loss at every step, too."""


def is_missing(name: str) -> str:
    """The package without which this tool cannot be measured here; "" when all is there."""
    needs = TOOLS[name]().needs
    return needs if needs and importlib.util.find_spec(needs) is None else ""
