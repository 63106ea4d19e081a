"""TensorBoard with the same data: what people have today."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser

from benchmarks.ui.browser import until
from benchmarks.ui.data import Shape, Stream, names
from trainvitals.hooks.wire.records import Step

STATISTICS = ("update_ratio", "std", "dead_fraction", "grad_rms")
CHARTS = "document.documentElement.innerHTML && window.charts?.()"
# Charts that hold a line, wherever in TensorBoard's shadow trees they are.
COUNT = """
window.charts = () => {
  let found = 0;
  const walk = (root) => {
    for (const element of root.querySelectorAll('*')) {
      if (element.tagName === 'LINE-CHART' && element.querySelector('canvas, svg path')) found += 1;
      if (element.shadowRoot) walk(element.shadowRoot);
    }
  };
  walk(document);
  return found;
};
"""


def write(folder: Path, shape: Shape) -> None:
    """Event files of the loss and four statistics of every layer, at every step."""
    from torch.utils.tensorboard import SummaryWriter

    random = np.random.default_rng(3)
    writer = SummaryWriter(str(folder))
    layers = names(shape)
    for step in range(shape.steps):
        noise = random.lognormal(0, 0.2, (shape.layers, len(STATISTICS)))
        writer.add_scalar("train/loss", 2.3 * (1 + step / 50) ** -0.5 * float(noise[0, 0]), step)
        for layer, values in zip(layers, noise, strict=True):
            for key, value in zip(STATISTICS, values, strict=True):
                writer.add_scalar(f"{layer}/{key}", float(value), step)
    writer.close()


def write_loss(folder: Path, shape: Shape) -> None:
    """Event files of the loss of every step: with one step that spikes, and one that is NaN."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for batch in Stream(Shape(2, shape.steps)).all():
        for record in batch.records:
            if isinstance(record, Step):
                writer.add_scalar("train/loss", record.scalars["train/loss"], record.step)
    writer.close()


def kept_steps(address: str) -> set[int]:
    """Steps of the loss that TensorBoard at `address` has for its chart."""
    with urllib.request.urlopen(
        f"{address}data/plugin/scalars/scalars?tag=train/loss&run=."
    ) as found:
        return {int(step) for _, step, _ in json.load(found)}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """TensorBoard's address, while the block runs; its data is loaded before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr or ():
            if found := re.search(r"http://\S+", line):
                time.sleep(15)  # it reads the files while it answers already
                yield found.group().rstrip(")")
                return
        raise RuntimeError("TensorBoard ended before it served anything.")
    finally:
        server.terminate()
        server.wait(20)


def first_chart(browser: Browser, address: str) -> float:
    """Seconds from navigation until one chart has a line; TensorBoard draws further ones as one scrolls."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.add_init_script(COUNT)
    begin = time.monotonic()
    page.goto(f"{address}#timeseries", wait_until="commit")
    until(page, CHARTS, 120)
    seconds = time.monotonic() - begin
    context.close()
    return seconds
