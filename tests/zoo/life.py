"""What happens to a model and a process besides training: copies, notebooks, threads, forks, data loaders."""

import copy
import io
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition
from tests.zoo.session import STEPS, Session


def watched_again(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, steps=4)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, steps=4)


def watched_with_new_optimizer(zoo: Session) -> None:
    model = small_net()
    zoo.watch(model, first := torch.optim.SGD(model.parameters(), lr=0.1))
    zoo.classify(model, first, steps=2)
    zoo.watch(model, second := torch.optim.Adam(model.parameters(), lr=1e-2))
    zoo.classify(model, second, steps=4)


def watched_with_new_model(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, steps=2)
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, steps=4)


def paused(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, steps=2)
    zoo.pause()
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, steps=4)


def second_init(zoo: Session) -> None:
    for _ in range(2):
        zoo.begin()
        model = small_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        zoo.watch(model, optimizer)
        zoo.classify(model, optimizer)


def copies(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)

    def copy_all_ways(_: int) -> None:
        if zoo.simple:  # its hooks cannot be copied
            return
        saved = io.BytesIO()
        torch.save(model, saved)
        saved.seek(0)
        again = small_net_like(model)
        again.load_state_dict(model.state_dict())
        loaded = torch.load(saved, weights_only=False)
        pickled = pickle.loads(pickle.dumps((model, optimizer)))
        inputs = torch.full((3, 8), 100.0)
        with torch.no_grad():
            wanted = model(inputs)
        for twin in (copy.deepcopy(model), loaded, pickled[0], again):
            twin(inputs).sum().backward()
            torch.testing.assert_close(twin(inputs), wanted, rtol=0, atol=0, equal_nan=True)
            assert not twin._forward_hooks and not twin[0]._forward_hooks

    zoo.classify(model, optimizer, after=copy_all_ways)


def small_net_like(_: nn.Module) -> nn.Module:
    """A new net that draws no random numbers."""
    with torch.random.fork_rng():
        return small_net()


def moving_average(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    average = AveragedModel(model)

    def update(_: int) -> None:
        average.update_parameters(model)
        with torch.no_grad():
            zoo.loss(average(torch.full((3, 8), 100.0)).sum())

    zoo.classify(model, optimizer, after=update)


def other_thread(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    done = []

    def work() -> None:
        zoo.classify(model, optimizer)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def two_threads(zoo: Session) -> None:
    """Another thread trains something else, and not well, between each forward and backward of what is watched."""
    model, other = small_net(), small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    generator = torch.Generator().manual_seed(1)
    steps = torch.optim.SGD(other.parameters(), lr=1e6)

    def train_other() -> float:
        steps.zero_grad()
        loss = other(torch.randn(12, 8, generator=generator)).square().mean()
        loss.backward()
        steps.step()
        return loss.item()

    with ThreadPoolExecutor(1) as beside:

        def call(inputs: Tensor) -> Tensor:
            logits = model(inputs)
            zoo.notes.append(str(beside.submit(train_other).result()))
            return logits

        zoo.classify(model, optimizer, call=call)
    assert "nan" in zoo.notes


def fork_after_attach(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def fork(step: int) -> None:
        if step != 1:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forking with threads
            child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(3):
                    optimizer.zero_grad()
                    model(torch.full((3, 8), 100.0)).sum().backward()
                    optimizer.step()
                run = tv.current_run()
                code = 0 if run is None or not run.recording else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    zoo.classify(model, optimizer, after=fork)


def _loaded(zoo: Session, start: str) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.randn(4 * STEPS, 8), torch.randint(0, 4, (4 * STEPS,)))
    workers = {} if zoo.simple else {"num_workers": 1, "multiprocessing_context": start}
    loader = DataLoader(data, 4, shuffle=True, **workers)
    zoo.watch(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            zoo.step(optimizer)
            zoo.loss(loss)


def forked_workers(zoo: Session) -> None:
    _loaded(zoo, "fork")


def spawned_workers(zoo: Session) -> None:
    _loaded(zoo, "spawn")


CONDITIONS = [
    Condition("watched again", watched_again),
    Condition("watched again, new optimizer", watched_with_new_optimizer),
    Condition("watched again, new model and optimizer", watched_with_new_model),
    Condition("detached, watched again", paused),
    Condition("init again, new run", second_init),
    Condition("deepcopy, pickle, torch.save, state_dict", copies),
    Condition("moving average of weights", moving_average),
    Condition("training in another thread", other_thread),
    Condition("another training in another thread", two_threads),
    Condition("fork after watch", fork_after_attach),
    Condition("DataLoader, forked workers", forked_workers),
    Condition("DataLoader, spawned workers", spawned_workers, slow=True),
]
