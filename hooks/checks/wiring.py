"""What the optimizer holds, what the gradients reach, what the loss is given, how the weights start."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from trainvitals.hooks.checks.subject import Subject, part, samples_of
from trainvitals.hooks.checks.verdicts import failed, named, passed, skipped
from trainvitals.hooks.observe import facts, graph, losses
from trainvitals.hooks.observe.reading import Reading
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.wire.observed import Checked

RESOLUTION = 2.0**-22
"""Two units in the last place of a float32. A smaller update may round to nothing, rightly."""
_SQUASHED = {
    ("cross-entropy", "softmax"): "cross-entropy takes the softmax itself",
    ("soft-cross-entropy", "softmax"): "cross-entropy takes the softmax itself",
    ("bce-logits", "sigmoid"): "this loss takes the sigmoid itself",
    ("nll", "softmax"): "nll_loss takes log-probabilities",
    ("nll", "linear"): "nll_loss takes log-probabilities",
}


def loss_call(subject: Subject) -> Iterator[Checked]:
    """What the loss is given, and whether its first value is that of guessing (`initial-loss-mismatch`)."""
    trained = subject.calm()
    loss = subject.loss(trained.model, subject.batches[0])
    if not loss.requires_grad:
        yield failed(
            "loss-detached",
            "critical",
            "the loss has no graph",
            "a loss that depends on trainable parameters",
            "Look for detach(), .item(), numpy or no_grad between the output and the loss.",
        )
        return
    found = list(graph.losses_of(loss))
    wrong = [_misuse(one) for one in found]
    yield next((one for one in wrong if one is not None), None) or (
        passed("loss-call", ", ".join(sorted({one.kind for one in found})))
        if found
        else skipped("loss-call", "no loss that is known")
    )
    yield _initial(found)
    yield _reduction(subject, trained.model, float(loss.detach()))


def _misuse(found: graph.Found) -> Checked | None:
    reason = _SQUASHED.get((found.kind, found.before))
    if found.normalised is not None and found.normalised[1] == 1:
        reason = "a softmax over one value is always 1"
    if found.wide and math.prod(found.shape) > 1:
        reason = (
            f"prediction {found.shape} and target make {found.wide}: each is compared with each"
        )
    if reason is None:
        return None
    return failed(
        "loss-call",
        "critical",
        f"{found.kind} of the output of {found.before or 'the model'}: {reason}",
        "what the loss's documentation asks for",
        "Remove the activation before the loss, or give prediction and target the same shape.",
    )


def _initial(found: list[graph.Found]) -> Checked:
    for one in found:
        if one.kind != "cross-entropy" or one.normalised is None or one.normalised[1] < 2:
            continue
        reading = Reading()
        with torch.no_grad():
            made, _ = losses.ask(one, reading)
        call = made(reading.values())
        if call.value is None or call.error is None:
            continue
        guessing = math.log(one.normalised[1])
        said = f"{call.value:.3g}, guessing costs {guessing:.3g}"
        if call.value > guessing + 2 + 3 * call.error:
            return failed(
                "initial-loss",
                "warning",
                said,
                f"about ln {one.normalised[1]}",
                "Scale the last layer down, and check that labels and outputs belong together.",
            )
        return passed("initial-loss", said)
    return skipped("initial-loss", "known for cross-entropy only")


def _reduction(subject: Subject, model: nn.Module, once: float) -> Checked:
    count = samples_of(subject.batches[0])
    if count < 4 or any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return skipped("loss-reduction", "needs 4 samples and a model without batch norm")
    halves = (slice(0, count // 2), slice(count // 2, 2 * (count // 2)))
    with torch.no_grad():
        parts = [float(subject.loss(model, part(subject.batches[0], half))) for half in halves]
    if once and abs(sum(parts) / once - 1) < 0.05 and count % 2 == 0:
        return failed(
            "loss-reduction",
            "info",
            "the loss is a sum over the batch",
            "a mean",
            "Use the mean: with a sum the batch size scales the learning rate.",
        )
    return passed("loss-reduction", "not a sum over the batch")


def structure(subject: Subject) -> Iterator[Checked]:
    """Weights whose units start the same, optimizers with other tensors, layers that no activation parts."""
    trained = subject.copied()
    registry = Registry()
    registry.add(trained.model, (), ())
    reading = Reading()
    with torch.no_grad():
        facts.ask(registry, [trained.optimizer], facts.Weights(registry, reading), reading)
    seen = reading.finish()
    known = seen.facts if seen is not None else None
    if known is None:
        return
    held = {id(t) for group in trained.optimizer.param_groups for t in group["params"]}
    missing = [
        n for n, p in trained.model.named_parameters() if p.requires_grad and id(p) not in held
    ]
    yield (
        failed(
            "in-optimizer",
            "critical",
            f"in no optimizer: {named(missing)}",
            "every trainable parameter in the optimizer",
            "Make the optimizer after the model is final, from model.parameters().",
            missing,
        )
        if missing
        else passed("in-optimizer", "the optimizer holds every trainable parameter")
    )
    yield (
        failed(
            "init-symmetry",
            "critical",
            f"all units start the same: {named(known.symmetric)}",
            "a random start",
            "kaiming_normal_ or xavier_uniform_; constants are for biases.",
            known.symmetric,
        )
        if known.symmetric
        else passed("init-symmetry", "units start differently")
    )


def device(subject: Subject) -> Iterator[Checked]:
    """Whether the weights are on the CPU while a GPU of this machine is not used by the process (`device-mismatch`)."""
    if subject.device.type != "cpu":
        yield passed("device", f"the model is on {subject.device}")
    elif not torch.cuda.is_available():  # also where CUDA_VISIBLE_DEVICES hides it on purpose
        yield passed("device", "the model is on the CPU, and there is no GPU")
    elif torch.cuda.memory_allocated():  # 0 where CUDA was never started
        yield passed("device", "the model is on the CPU, and other tensors are on a GPU")
    else:
        yield failed(
            "device",
            "warning",
            "the model is on the CPU, and nothing is on the GPU",
            "the model on the accelerator that is there",
            "model.to('cuda') before the optimizer is made, and the batches likewise. Set CUDA_VISIBLE_DEVICES to "
            "nothing where the CPU is meant.",
        )


def gradients(subject: Subject) -> Iterator[Checked]:
    """Every trainable parameter gets a gradient and changes; frozen ones stay."""
    trained = subject.copied()
    before = {name: p.detach().clone() for name, p in trained.model.named_parameters()}
    reached: set[str] = set()
    movable: set[str] = set()
    rate = min(
        (float(group.get("lr", 1.0)) for group in trained.optimizer.param_groups), default=1.0
    )
    for batch in (subject.batches * 3)[
        :3
    ]:  # a factor that starts at 0 passes gradients on from the second step
        subject.step(trained, batch)
        for name, parameter in trained.model.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                reached.add(name)
                if (
                    rate * parameter.grad.abs().amax()
                    > RESOLUTION * parameter.detach().abs().amax()
                ):
                    movable.add(name)
    trainable = [name for name, p in trained.model.named_parameters() if p.requires_grad]
    cut_off = [name for name in trainable if name not in reached]
    everything = len(cut_off) == len(trainable)
    yield (
        failed(
            "grad-reach",
            "critical" if everything or len(cut_off) * 2 > len(trainable) else "warning",
            f"no gradient in 3 steps: {named(cut_off)}",
            "a gradient for every trainable parameter",
            "Look for detach(), an unused branch, or units that are all dead.",
            cut_off,
        )
        if cut_off
        else passed("grad-reach", f"gradients for all {len(trainable)} trainable parameters")
    )
    changed = {
        n for n, p in trained.model.named_parameters() if not torch.equal(p.detach(), before[n])
    }
    still = [name for name in reached if name not in changed and name in movable]
    moved = [name for name in changed if name not in trainable]
    wrong = still or moved
    yield (
        failed(
            "params-change",
            "critical",
            f"{'unchanged after 3 steps' if still else 'frozen, and changed'}: {named(sorted(wrong))}",
            "trainable parameters change, frozen ones do not",
            "The optimizer must hold these very tensors, with a learning rate above 0.",
            sorted(wrong),
        )
        if wrong
        else passed("params-change", "trainable parameters change, frozen ones do not")
    )
