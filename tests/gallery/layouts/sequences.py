"""Recurrent decoders, by the way in which z reaches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.nets import as_sse
from tests.gallery.layouts.shelf import TWO, Maker, layout
from tests.gallery.own import Own


class Repeated(nn.Module):
    """z is the input of every step of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_lstm = nn.LSTM(2, 20, batch_first=True)
        self.fc_mu = nn.Linear(20, 3)
        self.fc_logvar = nn.Linear(20, 3)
        self.decoder_lstm = nn.LSTM(3, 20, batch_first=True)
        self.output_layer = nn.Linear(20, 2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder_lstm(x)[1][0][-1]
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.output_layer(self.decoder_lstm(z[:, None].expand(-1, 12, -1))[0])


class FirstState(nn.Module):
    """A layer turns z into the first state of a GRU whose inputs are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_rnn = nn.GRU(2, 20, batch_first=True)
        self.hidden2mean = nn.Linear(20, 3)
        self.hidden2logv = nn.Linear(20, 3)
        self.latent2hidden = nn.Linear(3, 20)
        self.decoder_rnn = nn.GRU(2, 20, batch_first=True)
        self.outputs2features = nn.Linear(20, 2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder_rnn(x)[1][-1]
        return self.hidden2mean(h), self.hidden2logv(h)

    def decode(self, z: Tensor) -> Tensor:
        first = torch.tanh(self.latent2hidden(z))[None]
        return self.outputs2features(self.decoder_rnn(z.new_zeros(len(z), 12, 2), first)[0])


class EachStep(nn.Module):
    """At each step an LSTM cell gets z beside what it gave at the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_lstm = nn.LSTM(2, 20, batch_first=True)
        self.fc_mu = nn.Linear(20, 3)
        self.fc_logvar = nn.Linear(20, 3)
        self.decoder_cell = nn.LSTMCell(2 + 3, 20)
        self.fc_out = nn.Linear(20, 2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder_lstm(x)[1][0][-1]
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        step, state, steps = z.new_zeros(len(z), 2), None, []
        for _ in range(12):
            state = self.decoder_cell(torch.cat([step, z], 1), state)
            step = self.fc_out(state[0])
            steps.append(step)
        return torch.stack(steps, 1)


def _sequence(network: Callable[[], nn.Module], name: str) -> Maker:
    """Return what trains such a network on the series, and writes NAME.pt."""

    def make(folder: Path) -> Own:
        made = network()
        reading = as_sse(made, own.series(), 0.5)
        return own.kept(made, reading, folder / f"{name}.pt", steps=500, rate=1e-2, batch=60)

    make.__name__ = name
    return make


for _name, _network, _like, _encoder, _decoder in (
    ("lstm_repeated", Repeated, "LSTM decoder with z as the input of every step",
     "lstm, last state", "lstm, z repeated"),
    ("gru_first_state", FirstState,
     "GRU decoder, tanh(latent2hidden(z)) its first state, zeros its inputs",
     "gru, last state", "gru, z the first state"),
    ("lstm_each_step", EachStep, "LSTM cell that gets z and its own last output at each step",
     "lstm, last state", "lstm cell, z beside the step before"),
):  # fmt: skip
    layout(
        f"{_name}.pt", "series.npy", _like,
        head=TWO, encoder=_encoder, decoder=_decoder, output="linear",
    )(_sequence(_network, _name))  # fmt: skip


@layout(
    "sentence_vae.pt", "series.npy",
    "teacher forcing: the decoder reads the true sequence, z its first state",
    head=TWO, refused=(("autoregressive", "teacher", "previous", "own inputs"),),
    next_step="a function that builds the model, with x as the condition of the decoder",
    wrong="the decoder run on zeros, which it never saw",
)  # fmt: skip
def sentence_vae(folder: Path) -> Own:
    network = FirstState()
    network.word_dropout = nn.Parameter(torch.zeros(2))
    x = own.series()

    def decode(z: Tensor, truth: Tensor) -> Tensor:
        first = torch.tanh(network.latent2hidden(z))[None]
        before = functional.pad(truth[:, :-1], (0, 0, 1, 0))
        return network.outputs2features(network.decoder_rnn(before, first)[0])

    def posterior(rows: Tensor, _c: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = network.encode(rows)
        return mean, (0.5 * log_variance).exp()

    reading = Own(posterior, decode, own.sse, "sse", 0.1, x, x)
    return own.kept(network, reading, folder / "sentence_vae.pt", steps=500, rate=1e-2, batch=60)
