"""Healthy trainings that look odd: nets, optimizers and schedules that other tools flag."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adam, adamw, binary, cross_entropy, sgd, squared, warm
from benchmarks.diagnosis.training import Training

HEALTHY: dict[str, Callable[[], Training]] = {}


def healthy(build: Callable[[], Training]) -> Callable[[], Training]:
    """Register a training of the clean suite."""
    HEALTHY["healthy-" + build.__name__.replace("_", "-")] = build
    return build


def _digits(model, optimizers, **more) -> Training:
    return Training(model, optimizers, data.digits(), cross_entropy, **more)


@healthy
def sgd_without_momentum():
    model = nets.mlp(64, 10)
    return _digits(model, sgd(model, 0.1, 0.0), steps=900)


@healthy
def high_rate_adam():
    model = nets.mlp(64, 10)
    return _digits(model, adam(model, 1e-2))


@healthy
def long_run_to_zero_loss():
    model = nets.mlp(64, 10, width=128)
    return _digits(model, adam(model, 2e-3), steps=1500, validate=100)


@healthy
def leaves_a_plateau_first():
    model = nets.mlp(64, 10, depth=6, width=96)
    return _digits(model, sgd(model, 0.05))


@healthy
def tanh_stack():
    model = nets.mlp(64, 10, depth=5, act=nn.Tanh)
    return _digits(model, sgd(model, 0.02))


@healthy
def two_sigmoid_layers():
    model = nets.mlp(64, 10, depth=2, act=nn.Sigmoid)
    return _digits(model, adam(model, 3e-3))


@healthy
def strong_dropout():
    model = nets.mlp(64, 10, width=128, dropout=0.5)
    return _digits(model, adam(model))


@healthy
def batch_of_4():
    model = nets.mlp(64, 10)
    return _digits(model, sgd(model, 0.01, 0.0), batch=4, steps=1200)


@healthy
def batch_of_1():
    model = nets.mlp(64, 10)
    return _digits(model, sgd(model, 0.01, 0.0), batch=1, steps=1500)


@healthy
def batch_of_1_regression():
    model = nets.mlp(10, 1)
    return Training(model, sgd(model, 0.003, 0.0), data.diabetes(), squared, batch=1, steps=1200)


@healthy
def full_batch():
    model = nets.mlp(13, 3, width=32)
    return Training(model, sgd(model, 0.1), data.wine(), cross_entropy, batch=142)


@healthy
def heavy_tailed_targets():
    model = nets.mlp(10, 1, width=8, depth=1)
    found = data.diabetes()
    y = torch.sinh(2 * found.y) / torch.sinh(2 * found.y).std()
    y_val = torch.sinh(2 * found.y_val) / torch.sinh(2 * found.y).std()
    return Training(
        model, adam(model, 5e-4), data.Data(found.x, y, found.x_val, y_val, 0), squared, steps=300
    )


@healthy
def label_smoothing():
    model = nets.mlp(64, 10)
    return _digits_with(model, lambda m, x, y: F.cross_entropy(m(x), y, label_smoothing=0.2))


def _digits_with(model, loss, optimizers=None, **more) -> Training:
    return Training(model, optimizers or adam(model), data.digits(), loss, **more)


@healthy
def half_of_the_labels_noise():
    model = nets.mlp(64, 10)
    training = _digits(model, adam(model), validate=0)
    training.corrupt = lambda x, y, step: (
        x,
        torch.where(torch.rand(len(y)) < 0.5, torch.randint(0, 10, y.shape), y),
    )
    return training


@healthy
def imbalanced_classes():
    model = nets.mlp(30, 1, width=8, depth=1)
    found = data.cancer()
    kept = torch.cat([found.y[:, 0].nonzero()[:, 0], (found.y[:, 0] == 0).nonzero()[:12, 0]])
    part = data.Data(found.x[kept], found.y[kept], found.x_val, found.y_val, 2)
    return Training(model, adam(model), part, binary)


@healthy
def focal_loss():
    def focal(model, x, y):
        logp = F.log_softmax(model(x), 1).gather(1, y[:, None])
        return -((1 - logp.exp()) ** 2 * logp).mean()

    model = nets.mlp(64, 10)
    return _digits_with(model, focal)


@healthy
def mixup():
    def mixed(model, x, y):
        share, other = float(torch.rand(())), torch.randperm(len(x))
        out = model(share * x + (1 - share) * x[other])
        return share * F.cross_entropy(out, y) + (1 - share) * F.cross_entropy(out, y[other])

    model = nets.mlp(64, 10, width=96)
    return _digits_with(model, mixed)


@healthy
def batch_norm_net():
    model = nets.mlp(64, 10, depth=4, norm=nn.BatchNorm1d)
    return _digits(model, sgd(model, 0.1))


@healthy
def layer_norm_net():
    model = nets.mlp(64, 10, depth=6, norm=nn.LayerNorm)
    return _digits(model, adam(model, 2e-3))


@healthy
def cnn_with_sgd():
    model = nets.cnn()
    return _digits(model, sgd(model, 0.1, weight_decay=5e-4), steps=300)


@healthy
def cnn_without_norm():
    model = nets.cnn(norm=False, width=16)
    return _digits(model, adam(model, 1e-3), steps=300)


@healthy
def cnn_sparse_by_nature():
    # Biases below zero: 80 % and more of the values behind each ReLU are zero, no unit is dead.
    model = nets.cnn(width=16)
    for name in ("bn1", "bn2"):
        nn.init.constant_(model.get_submodule(name).bias, -0.9)
    return _digits(model, adam(model, 1e-3), steps=300)


@healthy
def sparse_by_an_l1_penalty():
    def penalised(model, x, y):
        hidden = model.act1(model.fc1(x))
        return F.cross_entropy(model.head(model.act2(model.fc2(hidden))), y) + 0.02 * hidden.mean()

    model = nets.mlp(64, 10, width=128)
    return _digits_with(model, penalised)


@healthy
def sparse_autoencoder():
    model = nets.named(
        ("encode", nn.Linear(64, 256)), ("act", nn.ReLU()), ("decode", nn.Linear(256, 64))
    )
    nn.init.constant_(model.encode.bias, -0.4)

    def loss(model, x, y):
        code = model.act(model.encode(x))
        return F.mse_loss(model.decode(code), x) + 1e-3 * code.abs().mean()

    return _digits_with(model, loss)


@healthy
def leaky_relu():
    model = nets.mlp(64, 10, depth=4, act=nn.LeakyReLU)
    return _digits(model, adam(model, 2e-3))


@healthy
def relu6_and_hardswish():
    model = nets.mlp(64, 10, depth=3, act=nn.ReLU6)
    model.act2 = nn.Hardswish()
    return _digits(model, adam(model, 2e-3))


@healthy
def residual_from_zero():
    model = nets.Residual(64, 10, blocks=8)
    return _digits(model, adamw(model, 1e-3))


@healthy
def residual_without_zero():
    model = nets.Residual(64, 10, blocks=8, zero=False)
    return _digits(model, adamw(model, 1e-3))


@healthy
def zero_head():
    model = nets.mlp(64, 10)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return _digits(model, adam(model, 3e-3))


@healthy
def small_initialisation():
    model = nets.mlp(64, 10, depth=2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.02)
    return _digits(model, adam(model, 2e-3))


@healthy
def transformer_with_warm_up():
    model = nets.RowTransformer(blocks=4)
    optimizers = adamw(model, 3e-3, weight_decay=0.1, betas=(0.9, 0.95))
    return _digits(model, optimizers, scheduler=warm(optimizers, 100), clip=1.0)


@healthy
def transformer_relu_feed_forward():
    model = nets.RowTransformer(blocks=2, act=nn.ReLU)
    optimizers = adamw(model, 2e-3, weight_decay=0.05)
    return _digits(model, optimizers, scheduler=warm(optimizers, 50))


@healthy
def torch_encoder_post_norm():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(8, 32)
            layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(32, 10)

        def forward(self, x):
            return self.head(self.encoder(self.embed(x.view(-1, 8, 8))).mean(1))

    model = Model()
    optimizers = adamw(model, 1e-3)
    return _digits(model, optimizers, scheduler=warm(optimizers, 50))


def _language(model, optimizers, **more) -> Training:
    return Training(model, optimizers, data.text(), cross_entropy, **more)


@healthy
def language_model():
    model = nets.CharTransformer(data.VOCABULARY, data.CONTEXT)
    optimizers = adamw(model, 3e-3, weight_decay=0.1, betas=(0.9, 0.95))
    return _language(model, optimizers, scheduler=warm(optimizers, 100), clip=1.0, steps=500)


@healthy
def language_model_with_tied_weights():
    model = nets.CharTransformer(data.VOCABULARY, data.CONTEXT, tied=True)
    optimizers = adamw(model, 2e-3, weight_decay=0.1)
    return _language(model, optimizers, scheduler=warm(optimizers, 50), clip=1.0)


@healthy
def language_model_lstm():
    model = nets.CharRecurrent(data.VOCABULARY)
    return _language(model, adam(model, 3e-3), clip=1.0)


@healthy
def language_model_gru_sgd():
    model = nets.CharRecurrent(data.VOCABULARY, nn.GRU)
    return _language(model, sgd(model, 0.5), clip=0.25)


@healthy
def lstm_on_rows():
    model = nets.Recurrent(nn.LSTM, layers=2)
    return _digits(model, adam(model, 3e-3), clip=1.0, steps=300)


@healthy
def gru_on_rows():
    model = nets.Recurrent(nn.GRU)
    return _digits(model, adam(model, 3e-3), steps=300)


@healthy
def plain_rnn():
    model = nets.Recurrent(nn.RNN)
    return _digits(model, adam(model, 1e-3), clip=1.0, steps=300)


@healthy
def wine_small_data():
    model = nets.mlp(13, 3, width=16, depth=1)
    return Training(model, adam(model, 3e-3), data.wine(), cross_entropy, batch=16)


@healthy
def cancer_logistic():
    model = nets.named(("head", nn.Linear(30, 1)))
    return Training(model, sgd(model, 0.05), data.cancer(), binary)


@healthy
def regression_to_the_noise_floor():
    model = nets.mlp(10, 1, width=8, depth=1)
    return Training(model, adam(model, 3e-3), data.diabetes(), squared, steps=900, validate=100)
