"""What all tests share: the option for pictures, and made-up runs that look like real ones."""

import copy
import gc
import math
import shutil
import time
from hashlib import sha256

import hypothesis
import msgspec
import numpy as np
import pytest

from trainvitals.app.evaluator import Evaluator
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.hooks.wire.bins import BINS, bin_of
from trainvitals.hooks.wire.codec import pack_counts, pack_floats
from trainvitals.hooks.wire.columns import ACTIVATION, MISSING_BITS, PARAMETER
from trainvitals.hooks.wire.records import (
    Batch,
    End,
    Event,
    Histograms,
    Layout,
    Row,
    Sample,
    Start,
    Step,
)

# No test depends on the clock of a machine that does other work, too.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")

LAYERS = [
    ("stem.conv", "Conv2d"),
    ("stem.relu", "ReLU"),
    ("block1.conv1", "Conv2d"),
    ("block1.relu1", "ReLU"),
    ("block1.conv2", "Conv2d"),
    ("block1.relu2", "ReLU"),
    ("block2.conv1", "Conv2d"),
    ("block2.relu1", "ReLU"),
    ("block2.conv2", "Conv2d"),
    ("block2.relu2", "ReLU"),
    ("head.fc1", "Linear"),
    ("head.fc2", "Linear"),
]
BLOW_UP = 240
"""Step at which the learning rate of the sick run jumps."""
FIRST_NAN = 352


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="DIR", help="keep the pictures of all pages in DIR")
    parser.addoption(
        "--write-compatibility", action="store_true", help="write docs/compatibility.md anew"
    )


@pytest.fixture(autouse=True, scope="session")
def quick_calibration():
    """Each watched training takes 25 ms to learn what watching costs it, which no test asks for."""
    from trainvitals.hooks import calibration

    calibration._ROUNDS = 3


class MadeRun:
    """Records of one stream with plausible statistics of twelve layers. `sick`: a jump of the learning
    rate that ends in NaN. `names` replaces layer names."""

    def __init__(
        self, run, *, steps, sick=False, name="", project="digits", names=None, every=2, start=1.7e9
    ):
        self.run, self.steps, self.sick, self.every = run, steps, sick, every
        self.layers = [((names or {}).get(layer, layer), kind) for layer, kind in LAYERS]
        self.weights = [name for name, kind in self.layers if kind != "ReLU"]
        self.random = np.random.default_rng(7)
        self.records = []
        self.time = start
        self._add(
            Start,
            project=project,
            name=name or run,
            config={"lr": 1e-3, "optimizer": "Adam", "batch size": 128},
            tags=["resnet"],
            environment={"host": "trainer-1", "torch": "2.13"},
        )
        self._layouts()
        for step in range(steps):
            self._step(step)

    def end(self, status="finished", message=""):
        self._add(End, step=self.steps - 1, status=status, message=message)
        return self

    def batches(self, size=200):
        for first in range(0, len(self.records), size):
            part = self.records[first : first + size]
            yield Batch(version=1, run=self.run, attempt="a1", rank=0, first=first, records=part)

    def grow(self, step):
        """The batch of one more step."""
        first = len(self.records)
        self._step(step)
        part = self.records[first:]
        return Batch(version=1, run=self.run, attempt="a1", rank=0, first=first, records=part)

    def _add(self, record, **fields):
        self.time += 0.6
        self.records.append(record(seq=len(self.records), time=self.time, **fields))

    def _layouts(self):
        activations = [
            Row(name=name, layer=name, type=kind, shape=(128, 16, 8, 8))
            for name, kind in self.layers
        ]
        parameters = []
        for name, kind in self.layers:
            if kind != "ReLU":
                shape = (16, 16, 3, 3) if kind == "Conv2d" else (64, 64)
                parameters.append(Row(name=f"{name}.weight", layer=name, type=kind, shape=shape))
                parameters.append(Row(name=f"{name}.bias", layer=name, type=kind, shape=(16,)))
        self.parameters = parameters
        keys = [column.key for column in ACTIVATION]
        self._add(Layout, step=0, group=0, kind="activation", rows=activations, columns=keys)
        keys = [column.key for column in PARAMETER]
        self._add(Layout, step=0, group=1, kind="parameter", rows=parameters, columns=keys)

    def _step(self, step):
        ill = self.sick and step >= BLOW_UP
        nan = self.sick and step >= FIRST_NAN
        loss = 2.3 * (1 + step / 25) ** -0.8 * self.random.lognormal(0, 0.18) + 0.02
        if ill:
            loss = loss * 1.02 ** (step - BLOW_UP) + 0.4
        scalars = {
            "loss": math.nan if nan else loss,
            "tv/grad_norm": math.nan
            if nan
            else 0.8 * self.random.lognormal(0, 0.3) * (9 if ill else 1),
            "tv/step_time": 0.032 * self.random.lognormal(0, 0.08),
            "tv/data_wait": 0.002 * self.random.lognormal(0, 0.4),
            "tv/overhead": 0.008 * self.random.lognormal(0, 0.1),
            "tv/lr/0": (0.2 if ill else 1e-3) * min(1.0, (step + 1) / 40),
        }
        if step % 20 == 19 and not nan:
            scalars["val/loss"] = 2.3 * (1 + step / 20) ** -0.7 + 0.08 + (0.8 if ill else 0)
            scalars["val/accuracy"] = min(0.97, 0.1 + 0.25 * math.log10(1 + step))
        sampled = step % self.every == 0
        samples = (
            [self._activations(step, ill, nan), self._parameters(step, ill, nan)] if sampled else []
        )
        shapes = self._histograms(step, ill) if step % 20 == 0 else []
        self._add(Step, step=step, scalars=scalars, samples=samples, histograms=shapes)
        if self.sick and step == FIRST_NAN:
            data = {"direction": "forward", "layer": self.layers[6][0], "nan": 3}
            self._add(Event, step=step, kind="nonfinite", layer=self.layers[6][0], data=data)

    def _activations(self, step, ill, nan):
        count = len(self.layers)
        std = self.random.lognormal(0, 0.06, count) * np.linspace(0.9, 0.5, count)
        dead = np.array([0.01 if kind == "ReLU" else math.nan for _, kind in self.layers])
        if ill:
            std[6:] *= 1.06 ** min(step - BLOW_UP, 90)
            dead[7:10] = np.where(
                np.isnan(dead[7:10]), dead[7:10], min(0.95, 0.02 * (step - BLOW_UP))
            )
        values = np.stack(
            [
                std * 0.4,
                std,
                std * 1.1,
                std * 6,
                np.array([0.5 if kind == "ReLU" else 0.0 for _, kind in self.layers]),
                np.zeros(count),
                dead,
                np.full(count, 20_000.0),
            ],
            axis=1,
        )
        if nan:
            values[6:, :4] = math.nan
            values[6:, 5] = 3
        return Sample(group=0, values=_first_columns(values, len(ACTIVATION)))

    def _parameters(self, step, ill, nan):
        count = len(self.parameters)
        warm = min(1.0, (step + 1) / 40)
        ratio = 4e-3 * warm * (1 + step / 300) ** -0.5 * self.random.lognormal(0, 0.25, count)
        gradient = 5e-3 * (1 + step / 60) ** -0.6 * self.random.lognormal(0, 0.3, count)
        weight = np.full(count, 0.072)
        if ill:
            ratio[6:] *= 180
            gradient[6:] *= 60
            weight[6:] *= 1.02 ** min(step - BLOW_UP, 100)
        zero = np.zeros(count)
        broken = np.where(np.arange(count) >= 6, 9.0, 0.0) if nan else zero
        columns = [
            weight,
            weight,
            weight * 1.7,
            zero,
            gradient,
            gradient,
            gradient * 6,
            broken,
            ratio,
            zero,
        ]
        values = np.stack(columns, axis=1)
        if nan:
            values[6:, 4:7] = math.nan
        return Sample(group=1, values=_first_columns(values, len(PARAMETER)))

    def _histograms(self, step, ill):
        shapes = []
        for kind, rows, size in (
            ("weight", self.parameters, 0.07),
            ("gradient", self.parameters, 4e-3),
            ("activation", self.layers, 0.7),
        ):
            counts = np.zeros((len(rows), BINS), np.uint32)
            for index in range(len(rows)):
                spread = size * (8 if ill and index >= 6 else 1)
                drawn = self.random.normal(0, spread, 256)
                np.add.at(counts[index], bin_of(drawn), 1)
            group = 0 if kind == "activation" else 1
            shapes.append(Histograms(group=group, kind=kind, counts=pack_counts(counts)))
        return shapes


def _first_columns(values, columns):
    """The first columns of a sample; the rest is not recorded."""
    bits = np.full((len(values), columns), MISSING_BITS, np.uint32)
    bits.view(np.float32)[:, : values.shape[1]] = values
    return pack_floats(bits.view(np.float32))


def pytest_collection_finish():
    """Let the collector look at what is new only: what all tests import is a million objects that stay."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process: what they share is then made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def made_run():
    """Make the records of a run; see `MadeRun`. The same run is made once, and its records are not to be changed."""
    made = {}

    def make(run, **how):
        key = run, repr(how)
        if key not in made:
            made[key] = MadeRun(run, **how)
        copied = copy.copy(made[key])
        copied.records = list(copied.records)
        copied.random = copy.deepcopy(copied.random)
        return copied

    return make


@pytest.fixture(scope="session")
def fill(tmp_path_factory):
    """Write runs into a database file and let the rules judge them; the same runs only once a session."""
    made = {}

    def write(path, *runs, received=None):
        batches = [(batch, received or run.time) for run in runs for batch in run.batches()]
        key = sha256(msgspec.msgpack.encode(batches)).digest()
        if path.exists():
            judge(path, batches)
        elif key in made:
            shutil.copyfile(made[key], path)
        else:
            judge(path, batches)
            made[key] = tmp_path_factory.mktemp("filled") / "trainvitals.db"
            shutil.copyfile(path, made[key])

    return write


def judge(path, batches):
    with Store.open(path) as store:
        for batch, received in batches:
            store.append(batch, received)
    evaluator = Evaluator(path, Settings(database=path))
    while evaluator.tick(time.time()):
        pass
    evaluator.close()
