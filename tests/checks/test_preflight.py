"""The checks before a training: each with a model that fails it and one that does not, on copies only."""

import copy
import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from trainvitals.app.diagnose import diagnose
from trainvitals.hooks.checks.subject import Subject
from trainvitals.hooks.checks.wiring import device

SGD = torch.optim.SGD


def blobs(samples=256):
    random_ = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(4, 12, generator=random_)
    y = torch.randint(4, (samples,), generator=random_)
    return centres[y] + 0.5 * torch.randn(samples, 12, generator=random_), y


def mlp(*tail):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4), *tail)


def outcomes(model=None, data=None, loss=F.cross_entropy, optimizer=None, rate=0.1):
    """Check to outcome."""
    model = model or mlp()
    optimizer = optimizer or SGD(model.parameters(), rate)
    data = data if data is not None else DataLoader(TensorDataset(*blobs()), 32, shuffle=True)
    report = tv.preflight(model, data, loss, optimizer, progress=False)
    return {result.check: result.outcome for result in report.results}


def test_a_sound_training_passes_every_check():
    found = outcomes()
    assert set(found.values()) <= {"pass", "skipped"}
    assert found["overfit-one-batch"] == found["batch-independence"] == found["loss-call"] == "pass"


@pytest.mark.parametrize(
    "there, allocated, expected", [(False, 0, "pass"), (True, 0, "warning"), (True, 512, "pass")]
)
def test_a_model_beside_a_gpu_that_does_nothing_is_a_warning(
    there, allocated, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: allocated)
    model = mlp()
    (result,) = device(Subject(model, blobs(), F.cross_entropy, SGD(model.parameters(), 0.1)))
    assert result.outcome == expected


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return self.inner(x) - self.inner(x).mean(0)


class Noisy(Mixing):
    def forward(self, x):
        return F.dropout(self.inner(x), 0.2)  # not told of eval()


class Blind(Mixing):
    def forward(self, x):
        return self.inner(torch.zeros_like(x))


class Cut(Mixing):
    def forward(self, x):
        return self.inner[2](self.inner[1](self.inner[0](x)).detach())


def half_held():
    model = mlp()
    return model, SGD(model[2].parameters(), 0.1)


def symmetric():
    model = mlp()
    nn.init.constant_(model[0].weight, 0.1)
    return model


def shrinking():
    layers = [layer for _ in range(8) for layer in (nn.Linear(12, 12), nn.ReLU())]
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, std=0.05)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, nn.Linear(12, 4))


def test_samples_that_influence_each_other_are_found():
    assert outcomes(Mixing())["batch-independence"] == "critical"


def test_an_evaluation_that_is_random_is_found():
    assert outcomes(Noisy())["eval-deterministic"] == "warning"


def test_a_model_that_does_not_look_at_its_inputs_is_found():
    found = outcomes(Blind())
    assert found["input-dependence"] == found["overfit-one-batch"] == "critical"


def test_a_part_that_no_gradient_reaches_is_found():
    assert outcomes(Cut())["grad-reach"] in ("warning", "critical")


def test_a_parameter_in_no_optimizer_is_found():
    model, optimizer = half_held()
    assert outcomes(model, optimizer=optimizer)["in-optimizer"] == "critical"


def test_a_symmetric_start_is_found():
    assert outcomes(symmetric())["init-symmetry"] == "critical"


def test_outputs_that_fade_through_the_depth_are_found():
    assert outcomes(shrinking())["init-scale"] == "warning"


def test_a_learning_rate_that_is_far_too_low_is_named():
    found = outcomes(rate=2e-3)
    assert found["overfit-one-batch"] in ("warning", "critical")


def line(rate):
    """Of a regression: its loss is a parabola, which a step of more than 2 / curvature climbs."""
    torch.manual_seed(0)
    x, y = blobs()
    model = nn.Linear(12, 1)
    data = DataLoader(TensorDataset(x, y[:, None].float()), 32, shuffle=True)
    return outcomes(model, data, F.mse_loss, SGD(model.parameters(), rate))["lr-range"]


def test_a_learning_rate_is_compared_with_a_sweep_over_rates():
    x = torch.cat([blobs()[0], torch.ones(256, 1)], 1)
    bound = 2 / float(torch.linalg.eigvalsh(2 * x.T @ x / len(x))[-1])
    assert line(bound) == line(1e-6 * bound) == "warning"
    assert line(bound / 10) == "pass"


def test_a_sweep_is_left_out_where_a_rate_means_something_else():
    model = mlp()
    found = outcomes(model, optimizer=torch.optim.LBFGS(model.parameters(), lr=1.0))
    assert found["lr-range"] == "skipped"


def test_softmax_before_cross_entropy_is_found():
    assert outcomes(mlp(nn.Softmax(1)))["loss-call"] == "critical"


def test_a_loss_that_broadcasts_is_found():
    x, _ = blobs()
    model = nn.Sequential(nn.Linear(12, 1))
    with pytest.warns(UserWarning, match="target size"):
        assert outcomes(model, (x[:32], x[:32, 0]), F.mse_loss)["loss-call"] == "critical"


def test_a_sum_over_the_batch_is_noted():
    loss = nn.CrossEntropyLoss(reduction="sum")
    assert outcomes(loss=loss, rate=1e-3)["loss-reduction"] == "info"


def test_sorted_labels_are_found():
    x, y = blobs()
    order = y.argsort()
    loader = DataLoader(TensorDataset(x[order], y[order]), 32)
    assert outcomes(data=loader)["label-order"] == "warning"


def test_nan_inputs_are_found():
    x, y = blobs()
    x[70, 3] = torch.nan
    loader = DataLoader(TensorDataset(x, y), 32)
    assert outcomes(data=loader)["data-finite"] == "critical"


def test_unscaled_inputs_are_found():
    x, y = blobs()
    found = outcomes(data=DataLoader(TensorDataset(100 * x, y), 32, shuffle=True))
    assert found["input-scale"] == "warning"


def test_a_label_without_an_output_is_found():
    x, y = blobs()
    found = outcomes(data=DataLoader(TensorDataset(x, y + 1), 32, shuffle=True))
    assert found["label-range"] == "critical"


def test_nothing_of_the_training_is_touched():
    model = mlp(nn.Dropout(0.1)).train()
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    outcomes(model, optimizer=optimizer)
    now = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(now[0], states[0]) and now[1:] == states[1:]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[0][name])
    assert optimizer.state_dict() == before[1]
    assert all(p.grad is None for p in model.parameters()) and model.training


def test_what_cannot_be_checked_is_refused_with_the_reason():
    model, loader = mlp(), DataLoader(TensorDataset(*blobs()), 32)
    optimizer = SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="loader itself"):
        tv.preflight(model, iter(loader), F.cross_entropy, optimizer)
    with pytest.raises(ValueError, match=r"torch\.nn\.Module"):
        tv.preflight(lambda x: x, loader, F.cross_entropy, optimizer)


def test_failed_checks_stand_in_the_open_run(tmp_path):
    with tv.init(project="p", mode="offline", dir=tmp_path):
        outcomes(Mixing())
    found = {finding.key: finding for finding in diagnose(tmp_path / ".trainvitals")}
    assert found["preflight:batch-independence"].severity == "critical"
    assert "preflight:data-finite" not in found


SCRIPT = """
import torch
from torch import nn
from torch.nn import functional as F

def sound():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    batch = torch.randn(32, 12), torch.randint(4, (32,))
    return model, batch, F.cross_entropy, torch.optim.Adam(model.parameters(), 1e-2)

def sick():
    model, batch, _, optimizer = sound()
    return model, batch, lambda out, y: F.cross_entropy(out.softmax(1), y), optimizer

def wrong():
    return 3
"""


@pytest.mark.slow
@pytest.mark.parametrize(("factory", "status"), [("sound", 0), ("sick", 1), ("wrong", 2)])
def test_the_command_checks_what_a_factory_makes(factory, status, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "trainvitals.app.cli", "preflight", f"{script}:{factory}"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == status
    if status == 2:
        assert "(model, batch_or_loader, loss_fn, optimizer)" in done.stderr
        return
    found = {result["check"]: result["outcome"] for result in json.loads(done.stdout)}
    assert found["loss-call"] == ("pass" if status == 0 else "critical")
