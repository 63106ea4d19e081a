"""The callback for the Trainer of Hugging Face Transformers, with a tiny BERT made from its configuration."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import trainvitals.hooks as tv
from trainvitals.hooks.integrations.transformers import TrainVitals


class Sentences(torch.utils.data.Dataset):
    """Random tokens; the class is whether the first one is in the upper half of the vocabulary."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(3)
        self.tokens = torch.randint(0, 40, (count, 6), generator=generator)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        tokens = self.tokens[index]
        return {"input_ids": tokens, "labels": int(tokens[0] >= 20)}


class Notes(TrainerCallback):
    """What the trainer logs, by `global_step`."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))

    def of(self, key):
        return {step - 1: logs[key] for step, logs in self.logs if key in logs}


@pytest.fixture
def trainer(tmp_path):
    """Make a trainer with the given callbacks and training arguments."""

    def make(*callbacks, **options):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=8,
        )
        chosen = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "learning_rate": 1e-3,
            "dataloader_pin_memory": False,
        }
        data = Sentences(64)
        return Trainer(
            model=BertForSequenceClassification(config),
            args=TrainingArguments(**chosen | options),
            train_dataset=data,
            eval_dataset=data,
            callbacks=list(callbacks),
        )

    return make


def test_the_callback_records_what_the_trainer_logs_and_the_layers(trainer, dashboard):
    notes = Notes()
    mine = trainer(
        notes, TrainVitals(project="bert", interval=1), eval_strategy="steps", eval_steps=4
    )
    mine.train()
    seen = dashboard()
    run = seen.run()
    assert (run["project"], run["status"], run["last_step"]) == ("bert", "finished", 7)
    assert run["config"]["learning_rate"] == 1e-3
    assert run["config"]["model"]["hidden_size"] == 16
    for key in ("loss", "learning_rate", "grad_norm", "eval_loss"):
        assert seen.series(key) == pytest.approx(notes.of(key)), key
    assert sorted(seen.series("eval_loss")) == [3, 7]
    assert {"bert.encoder.layer.0.attention.self.query", "classifier"} <= set(seen.layers())
    names = {name for name, _ in mine.model.named_parameters()}
    assert set(seen.layers("parameter")) == names
    assert seen.matrix("parameter", "update_ratio")["steps"] == list(range(8))
    speed = ("runtime", "second", "flos")
    assert not [name for name in run["scalars"] if name.endswith(speed)]
    assert seen.problems() == []


def test_its_own_gradient_norm_is_the_trainers_before_clipping(trainer, dashboard):
    notes = Notes()
    trainer(notes, TrainVitals(interval=1), max_grad_norm=1e9).train()
    assert dashboard().series("tv/grad_norm") == pytest.approx(notes.of("grad_norm"), rel=1e-4)


def test_accumulated_batches_are_one_step(trainer, dashboard):
    notes = Notes()
    trainer(notes, TrainVitals(interval=1), max_steps=3, gradient_accumulation_steps=2).train()
    seen = dashboard()
    assert sorted(seen.series("tv/grad_norm")) == [0, 1, 2]
    assert seen.series("loss") == pytest.approx(notes.of("loss"))


def test_a_resumed_training_goes_on_counting(trainer, dashboard, tmp_path):
    first, second = Notes(), Notes()
    options = {"save_strategy": "steps", "save_steps": 4}
    trainer(first, TrainVitals(id="long", interval=1), **options).train()
    checkpoint = str(tmp_path / "out" / "checkpoint-4")
    trainer(second, TrainVitals(id="long", interval=1), **options).train(
        resume_from_checkpoint=checkpoint
    )
    seen = dashboard()
    assert len(seen.run()["attempts"]) == 2
    before = {step: loss for step, loss in first.of("loss").items() if step < 4}
    assert sorted(second.of("loss")) == [4, 5, 6, 7]
    assert seen.series("loss") == pytest.approx(before | second.of("loss"))
    assert list(seen.series("tv/grad_norm")) == list(range(8))


def test_what_is_evaluated_after_the_training_goes_on_in_its_run(trainer, dashboard):
    notes = Notes()
    mine = trainer(notes, TrainVitals(interval=1))
    mine.evaluate()  # before there is a run
    mine.train()
    mine.evaluate(metric_key_prefix="final")
    seen = dashboard()
    assert seen.run()["status"] == "finished"
    assert seen.series("final_loss") == pytest.approx({8: notes.of("final_loss")[7]})
    assert seen.series("loss") == pytest.approx(notes.of("loss"))
    assert seen.matrix("parameter", "update_ratio")["steps"] == list(range(8))


def test_numbers_of_any_kind_that_a_trainer_logs_are_recorded(trainer, dashboard):
    class More(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            logs |= {"a": torch.tensor(1.5), "b": np.float32(2.5), "c": np.int64(3)}
            logs |= {"d": "text", "e": torch.ones(2), "f": None}

    trainer(More(), TrainVitals()).train()
    seen = dashboard()
    assert {key for key in seen.run()["scalars"] if len(key) == 1} == {"a", "b", "c"}
    assert [seen.series(key)[7] for key in "abc"] == [1.5, 2.5, 3.0]
    assert seen.problems() == []


def test_a_training_left_by_an_exception_is_closed_as_failed_by_the_next(trainer, dashboard):
    class Broken(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise RuntimeError("out of luck")

    callback, broken = TrainVitals(interval=1), Broken()
    mine = trainer(callback, broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        mine.train()
    left = callback.run.id
    mine.remove_callback(broken)
    mine.train()
    seen = dashboard()
    status = {run: seen.get(f"/{run}")["status"] for run in seen.runs()}
    assert status.pop(left) == "failed"
    assert list(status.values()) == ["finished"]


def test_weights_are_the_same_with_and_without(trainer):
    plain, watched = trainer(), trainer(TrainVitals(interval=1))
    for each in (plain, watched):
        torch.manual_seed(1)  # of the dropout
        each.train()
    pairs = zip(plain.model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_a_run_that_was_open_before_stays_open(trainer, dashboard):
    with tv.init(project="mine") as run:
        trainer(TrainVitals(project="other")).train()
        assert not run.finished
    assert dashboard().run()["project"] == "mine"
