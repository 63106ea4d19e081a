"""causal-leak: whether later tokens change earlier outputs, and where that is no fault."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv
from trainvitals.hooks.checks.causal import causal_leak
from trainvitals.hooks.checks.subject import Subject

TOKENS = torch.randint(2, 30, (4, 13), generator=torch.Generator().manual_seed(0))
NEXT = (TOKENS[:, :-1], TOKENS[:, 1:])


class Attention(nn.Module):
    """A block of attention over an embedding; `causal` masks later tokens."""

    def __init__(self, causal):
        super().__init__()
        torch.manual_seed(0)
        self.causal = causal
        self.embed, self.head = nn.Embedding(32, 16), nn.Linear(16, 32)
        self.drop = nn.Dropout(0.3)

    def hidden(self, tokens):
        x = self.embed(tokens)
        return self.drop(x + F.scaled_dot_product_attention(x, x, x, is_causal=self.causal))

    def forward(self, tokens):
        return self.head(self.hidden(tokens))


class Recurrent(Attention):
    def __init__(self, both):
        super().__init__(False)
        self.rnn = nn.GRU(16, 16, batch_first=True, bidirectional=both)
        self.head = nn.Linear(32 if both else 16, 32)

    def hidden(self, tokens):
        return self.rnn(self.embed(tokens))[0]


class ByChannel(Attention):
    """Classes in dimension 1, as cross_entropy takes them."""

    def forward(self, tokens):
        return super().forward(tokens).transpose(1, 2)


class Mapped(Attention):
    """Takes and gives what models of the Transformers library do; shifts the labels by itself."""

    def forward(self, input_ids, labels):
        logits = super().forward(input_ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=loss, logits=logits)


def told(model, batch=NEXT, loss=lambda out, y: F.cross_entropy(out.flatten(0, 1), y.flatten())):
    (result,) = causal_leak(Subject(model, batch, loss, torch.optim.SGD(model.parameters(), 0.1)))
    return result.outcome


@pytest.mark.parametrize("model", [Attention(False), Recurrent(True), ByChannel(False)])
def test_an_output_that_sees_later_tokens_is_critical(model):
    assert told(model) == "critical"


@pytest.mark.parametrize("model", [Attention(True), Recurrent(False), ByChannel(True)])
def test_an_output_that_sees_no_later_token_passes(model):
    assert told(model) == "pass"


def test_labels_that_the_model_shifts_itself_are_known():
    batch = {"input_ids": TOKENS, "labels": TOKENS.clone()}
    assert told(Mapped(False), batch, None) == "critical"
    assert told(Mapped(True), batch, None) == "pass"


def test_padding_that_the_loss_ignores_is_no_other_target():
    target = NEXT[1].clone()
    target[:, 9:] = -100
    assert told(Attention(False), (NEXT[0], target)) == "critical"


def test_what_is_no_prediction_of_the_next_token_is_skipped():
    masked = torch.where(torch.rand(TOKENS.shape) < 0.15, TOKENS, -100)
    assert told(Attention(False), (TOKENS, TOKENS % 5)) == "skipped"  # a tag for each token
    assert told(Mapped(False), {"input_ids": TOKENS, "labels": masked}, None) == "skipped"
    assert told(Attention(False), (torch.randn(4, 12), torch.randint(4, (4,)))) == "skipped"


def test_the_model_itself_stays_as_it_was():
    model = Attention(False).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told(model)
    assert model.training and all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_preflight_names_the_leak():
    model = Attention(False)
    loss = lambda out, y: F.cross_entropy(out.flatten(0, 1), y.flatten())  # noqa: E731
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    report = tv.preflight(model, NEXT, loss, optimizer, progress=False)
    assert {r.check: r.outcome for r in report.results}["causal-leak"] == "critical"
