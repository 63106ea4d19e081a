"""What is seen of a loop: right numbers, nothing changed, nothing left behind, readable by older and newer sides."""

import math

import msgspec
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import trainvitals.hooks as tv
from tests.observe.faults import CLASSES, DataLoader, Loop, data, judge, mlp, observations
from trainvitals.app.store import Store
from trainvitals.hooks.observe import graph, loaders
from trainvitals.hooks.spool import find_streams, read_meta, read_stream
from trainvitals.hooks.wire.codec import decode_record, encode_record
from trainvitals.hooks.wire.observed import Observed
from trainvitals.hooks.wire.records import Batch, Step


def looked(folder):
    """The observations that hold a loss."""
    return [(step, seen) for step, seen in observations(folder) if seen.losses]


def test_the_loss_call_is_seen_with_its_value_and_labels(tmp_path):
    values, labels = [], []

    def loss(out, y):
        values.append(F.cross_entropy(out, y).item())
        labels.append(y)
        return F.cross_entropy(out, y, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]), reduction="sum")

    judge(Loop(loss=loss, steps=6), tmp_path, interval=1)
    seen = looked(tmp_path)
    assert [step for step, _ in seen] == [0, 1, 2, 4]  # then every other look
    for (step, observed), value, y in zip(
        seen, [values[i] for i in (0, 1, 2, 4)], [labels[i] for i in (0, 1, 2, 4)], strict=True
    ):
        call = observed.losses[0]
        assert (call.value is None) == (step > 2)
        assert (call.kind, call.before, call.reduction) == ("cross-entropy", "linear", "sum")
        assert call.value in (None, pytest.approx(value, rel=1e-5))
        counts = {str(c): int((y == c).sum()) for c in range(CLASSES) if (y == c).any()}
        assert call.targets.classes == counts
        assert call.targets.agreeing == int((y[1:] == y[:-1]).sum())


def test_predicted_classes_are_counted_without_ignored_labels(tmp_path):
    said = []

    def loss(out, y):
        target = torch.where(torch.arange(len(y)) < 5, -100, y)
        said.append(out.detach().argmax(1)[5:])
        return F.cross_entropy(out, target)

    judge(Loop(loss=loss, steps=1), tmp_path, interval=1)
    call = looked(tmp_path)[0][1].losses[0]
    assert call.predicted == {str(int(c)): int((said[0] == c).sum()) for c in said[0].unique()}
    assert call.spread is None


@pytest.mark.parametrize("given", ["logits", "probabilities"])
def test_a_single_output_predicts_one_of_two_classes(given, tmp_path):
    said = []

    def loss(out, y):
        score, target = out[:, :1], (y > 1).float()[:, None]
        said.append(int((score > 0).sum()))
        if given == "logits":
            return F.binary_cross_entropy_with_logits(score, target)
        return F.binary_cross_entropy(score.sigmoid(), target)

    judge(Loop(loss=loss, steps=1), tmp_path, interval=1)
    call = looked(tmp_path)[0][1].losses[0]
    assert call.predicted.get("1", 0) == said[0]
    assert sum(call.predicted.values()) == call.targets.count


def test_the_spread_of_predicted_numbers_is_measured(tmp_path):
    spread = []

    def loss(out, y):
        spread.append(float(out[:, 0].detach().std(correction=0)))
        return F.mse_loss(out[:, 0], y.float())

    judge(Loop(loss=loss, steps=1), tmp_path, interval=1)
    call = looked(tmp_path)[0][1].losses[0]
    assert (call.spread, call.predicted) == (pytest.approx(spread[0], rel=1e-5), {})


@pytest.mark.parametrize(
    ("loss", "kind", "value"),
    [
        (F.mse_loss, "mse", lambda o, t: ((o - t) ** 2).mean()),
        (F.binary_cross_entropy_with_logits, "bce-logits", F.binary_cross_entropy_with_logits),
        (F.smooth_l1_loss, "smooth-l1", None),
        (F.huber_loss, "huber", None),
        (F.l1_loss, "absolute", None),
    ],
)
def test_element_wise_losses_are_told_apart(loss, kind, value, tmp_path):
    expected = []

    def kept(out, y):
        target = (y > 1).float()
        expected.append(None if value is None else value(out[:, 0], target).item())
        return loss(out[:, 0], target)

    judge(Loop(loss=kept, steps=1), tmp_path, interval=1)
    call = looked(tmp_path)[0][1].losses[0]
    assert call.kind == kind
    assert call.value == (None if value is None else pytest.approx(expected[0], rel=1e-5))


def test_ignored_labels_are_left_out_of_value_and_classes(tmp_path):
    expected = []

    def loss(out, y):
        y = torch.where(y == 0, -100, y)
        expected.append(F.cross_entropy(out, y).item())
        return F.cross_entropy(out, y)

    judge(Loop(loss=loss, steps=1), tmp_path, interval=1)
    call = looked(tmp_path)[0][1].losses[0]
    assert call.value == pytest.approx(expected[0], rel=1e-5)
    assert "0" not in call.targets.classes
    assert call.targets.ignored == call.targets.count - sum(call.targets.classes.values()) > 0


def test_calls_are_noted_in_their_order(tmp_path):
    def step(loop, x, y):
        for half in (slice(0, 16), slice(16, 32)):
            loop.loss(loop.model(x[half]), y[half]).backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        loop.opt.step()
        loop.opt.zero_grad()

    judge(Loop(step=step, steps=3), tmp_path, interval=1)
    orders = [seen.order for _, seen in observations(tmp_path) if seen.order]
    assert orders == [
        ["f", "b", "f", "b", "c", "s0"],
        ["z0", "f", "b", "f", "b", "c", "s0"],
        ["z0", "f", "b", "f", "b", "c", "s0"],
    ]


def test_inputs_are_measured_and_told_apart(tmp_path):
    batches = []

    def step(loop, x, y):
        batches.append(x)
        loop.one(x, y)

    judge(Loop(step=step, steps=3), tmp_path, interval=1)
    seen = [observed.batch for _, observed in looked(tmp_path)]
    for batch, x in zip(seen, batches, strict=True):
        assert batch.mean == pytest.approx(x.mean().item(), abs=1e-6)
        assert batch.std == pytest.approx(x.std(correction=0).item(), rel=1e-5)
        assert (batch.low, batch.high) == (x.min().item(), x.max().item())
    assert len({batch.digest for batch in seen}) == 3


def train(seed, folder, watched):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    losses = []
    with tv.init(project="p", mode="offline" if watched else "disabled", dir=folder):
        tv.watch(model, optimizer, interval=1, strict=True)
        for x, y in DataLoader(data(256), 32, shuffle=True):
            loss = F.cross_entropy(model(x).softmax(1), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.detach().numpy().tobytes())
    state = [t.numpy().tobytes() for t in model.state_dict().values()]
    return losses, state, torch.random.get_rng_state().numpy().tobytes()


def test_an_observed_training_is_the_same_bit_for_bit(tmp_path):
    assert train(3, tmp_path, True) == train(3, tmp_path, False)


def replaced():
    optim, scaler = torch.optim, torch.amp.GradScaler
    return [
        torch.autograd.backward,
        torch.autograd.grad,
        optim.Optimizer.zero_grad,
        optim.lr_scheduler.LRScheduler.step,
        optim.lr_scheduler.ReduceLROnPlateau.step,
        scaler.scale,
        scaler.unscale_,
        nn.utils.clip_grad._clip_grads_with_norm_,
    ]


def test_between_looks_and_after_the_end_torch_is_as_it_was(tmp_path):
    before, during = replaced(), []

    def step(loop, x, y):
        loop.one(x, y)
        during.append(replaced())

    judge(Loop(step=step, steps=43), tmp_path, interval=100)
    assert replaced() == before
    quiet = during[34]  # the step after it is step 35, which nobody looks at
    assert quiet[2:7] == before[2:7]
    assert during[37][2] is not before[2]  # after step 37 begins step 38, which is looked at


def test_a_loss_in_a_checkpoint_is_not_computed_again(tmp_path):
    calls = []

    def loss(out, y):
        def inner(scores):
            calls.append(1)
            return F.cross_entropy(scores, y)

        return checkpoint(inner, out, use_reentrant=False)

    judge(Loop(loss=loss, steps=3), tmp_path, interval=1)
    assert len(calls) == 6  # forward, and once more in each backward
    call = looked(tmp_path)[0][1].losses[0]
    assert call.kind == "cross-entropy" and call.value is None


def test_offloaded_tensors_stay_where_they_are():
    fetched = []

    def unpack(tensor):
        fetched.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        loss = F.mse_loss(torch.ones(3, requires_grad=True) * 2, torch.zeros(3))
    found = list(graph.losses_of(loss))
    assert [one.kind for one in found] == ["mse"]
    assert graph.saved(found[0].node, "self") is None and fetched == []


def test_evaluations_are_counted_by_pauses(tmp_path):
    def evaluate(loop):
        with torch.inference_mode():
            for _ in range(3):
                loop.model(torch.zeros(2, 12))

    judge(Loop(model=mlp(dropout=0.5), after_epoch=evaluate, steps=32), tmp_path)
    told = [seen.evaluation for _, seen in observations(tmp_path) if seen.evaluation][-1]
    assert (told.phases, told.forwards, told.training, told.training_phases) == (2, 6, 6, 2)
    assert told.names == ["2"]


def test_shared_samples_are_known_by_index_and_by_content():
    whole = data(100)
    x, y = whole.tensors
    subset = torch.utils.data.Subset
    tensors = torch.utils.data.TensorDataset
    assert loaders.shared(subset(whole, range(80)), subset(whole, range(60, 100))) == 0.5
    assert loaders.shared(subset(whole, range(80)), subset(whole, range(80, 100))) == 0.0
    assert loaders.shared(tensors(x[:80], y[:80]), tensors(x[75:].clone(), y[75:])) == 0.2
    assert loaders.shared(whole, whole) is None


def test_the_data_of_a_part_are_those_of_the_whole():
    whole, subset = data(100), torch.utils.data.Subset
    assert loaders.whole(subset(subset(whole, range(80)), range(40))) is whole


class OldStep(msgspec.Struct, tag="step", frozen=True, kw_only=True, omit_defaults=True):
    seq: int
    time: float
    step: int
    scalars: dict[str, float] = {}


def test_a_side_that_does_not_know_observations_reads_the_rest():
    step = Step(seq=1, time=2.0, step=3, scalars={"loss": 1.0}, observed=Observed(order=["f"]))
    old = msgspec.msgpack.decode(encode_record(step), type=OldStep)
    assert (old.step, old.scalars) == (3, {"loss": 1.0})
    assert decode_record(msgspec.msgpack.encode(old)).observed is None
    assert decode_record(encode_record(step)) == step


def test_the_store_gives_observations_back(tmp_path):
    judge(Loop(steps=5), tmp_path, interval=1)
    folder = find_streams(tmp_path / ".trainvitals")[0]
    meta, sent = read_meta(folder), list(read_stream(folder))
    batch = Batch(version=2, run=meta.run, attempt=meta.attempt, rank=0, first=0, records=sent)
    with Store.open(tmp_path / "db.sqlite") as store:
        store.append(batch, 1.0)
        stored = [r.observed for _, r in store.replay(meta.run, {}, 1000) if isinstance(r, Step)]
    assert [o for o in stored if o] == [r.observed for r in sent if getattr(r, "observed", None)]
    assert any(o is not None and o.facts for o in stored)


def test_labels_give_the_prior_without_being_told(tmp_path):
    judge(Loop(steps=30), tmp_path, interval=1)
    folder = find_streams(tmp_path / ".trainvitals")[0]
    entropies = [
        r.scalars["tv/label_entropy"]
        for r in read_stream(folder)
        if "tv/label_entropy" in getattr(r, "scalars", {})
    ]
    assert entropies[-1] == pytest.approx(math.log(CLASSES), abs=0.05)


def test_parameters_without_an_optimizer_or_a_gradient_are_named(tmp_path):
    model = nn.ModuleDict(
        {"used": nn.Linear(12, 4), "left": nn.Linear(12, 4), "cut": nn.Linear(12, 4)}
    )
    kept = [*model["used"].parameters(), *model["cut"].parameters()]

    def step(loop, x, y):
        cut = model["cut"](x).detach()
        loop.opt.zero_grad()
        F.cross_entropy(model["used"](x) + model["left"](x) + cut, y).backward()
        loop.opt.step()

    loop = Loop(model=model, step=step, steps=25, optimizer=lambda _: torch.optim.SGD(kept, 0.01))
    found = judge(loop, tmp_path, interval=100)  # one sample: the rest is looks
    seen = [told for _, told in observations(tmp_path) if told.unheld is not None]
    assert len(seen) >= 12
    assert {tuple(told.unheld) for told in seen} == {("left.weight", "left.bias")}
    assert {tuple(told.ungiven) for told in seen} == {("cut.weight", "cut.bias")}
    assert found["trainable-not-in-optimizer"].layers == ["left"]
    assert found["unchanged-parameter"].layers == ["cut"]


def test_a_layer_that_is_dropped_at_times_is_not_cut_off(tmp_path):
    model = nn.ModuleDict({"used": nn.Linear(12, 4), "dropped": nn.Linear(12, 4)})

    def step(loop, x, y):
        out = model["used"](x)
        if loop.done < 20 and loop.done % 4 == 0:
            out = out + model["dropped"](x)
        loop.opt.zero_grad()
        F.cross_entropy(out, y).backward()
        loop.opt.step()

    found = judge(Loop(model=model, step=step, steps=60), tmp_path, interval=100)
    assert "unchanged-parameter" not in found
