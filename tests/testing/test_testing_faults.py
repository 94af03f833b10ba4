"""Twelve seeded faults, each caught by a law whose name says it; and the sound versions pass."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.contracts import VAE, Adapter, Analysis, Metric, Posterior, Variable
from isoprobe.statistics.moments import Moments
from isoprobe.testing import Law, LawError, check_adapter, check_analysis, check_metric
from isoprobe_plugins.adapters.native import Native
from isoprobe_plugins.architectures.linear import linear_networks


def broken(laws: Iterable[Law]) -> dict[str, str]:
    """Names of the laws that do not hold, with what they say."""
    found = {}
    for law in laws:
        try:
            law()
        except LawError as error:
            found[law.name] = str(error)
    return found


# ------------------------------------------------------------------ metrics


class Sound(Metric):
    """Squared error, with every form a metric may give."""

    name = "sound"
    input_range = (0.0, 1.0)

    def distortion(self, x, x_hat):
        return (x - x_hat).square().flatten(1).sum(1)

    def tensor_action(self, x, v):
        return v

    def logits_distortion(self, x, logits):
        return self.distortion(x, torch.sigmoid(logits))

    def logits_diagonal(self, logits):
        mean = torch.sigmoid(logits)
        return (mean * (1 - mean)).square()


class NotSymmetric(Sound):
    def tensor_action(self, x, v):
        return v + 0.1 * v.roll(1, dims=-1)


class OffByTwo(Sound):
    def tensor_action(self, x, v):
        return 2 * v


class MixesRows(Sound):
    def distortion(self, x, x_hat):
        return (x - x_hat).square().flatten(1).sum(1) * (1 + 0.01 * x.mean())


class LogitsDisagree(Sound):
    def logits_distortion(self, x, logits):
        return self.distortion(x, torch.sigmoid(1.05 * logits))


def test_a_sound_metric_breaks_no_law() -> None:
    assert broken(check_metric(Sound())) == {}


# ------------------------------------------------------------------ adapters

BETA = 0.1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear VAE at its optimum."""
    path = tmp_path_factory.mktemp("faults") / "linear.safetensors"
    covariance = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.3, 0.05, 0.05], dtype=torch.float64))
    networks, manifest = linear_networks(covariance, BETA, 4)
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    return path


class TrainMode(Native):
    """Puts its networks back into train mode."""

    def load(self, source, options):
        vae = super().load(source, options)
        vae.module.train()
        return vae


class TrainModeOutOfSight(Native):
    """Keeps dropout in train mode in a module it does not own up to."""

    def load(self, source, options):
        vae = super().load(source, options)
        noisy, encode = nn.Dropout(0.2), vae.encode
        vae.encode = lambda x: encode(noisy(x))
        return vae


class LogStdReadAsLogvar(Native):
    """exp(s / 2) where the file means exp(s)."""

    def load(self, source, options):
        vae = super().load(source, options)
        encode = vae.encode

        def half(x):
            posterior = encode(x)
            return Posterior(posterior.mean, posterior.std.log().mul(0.5).exp())

        vae.encode = half
        return vae


class LogvarReadAsLogStd(LogStdReadAsLogvar):
    """exp(s) where the file means exp(s / 2)."""

    def load(self, source, options):
        vae = Native.load(self, source, options)
        encode = vae.encode

        def double(x):
            posterior = encode(x)
            return Posterior(posterior.mean, posterior.std.square())

        vae.encode = double
        return vae


class MutatesInput(Native):
    def load(self, source, options):
        vae = super().load(source, options)
        encode = vae.encode
        vae.encode = lambda x: encode(x.sub_(x.mean()))
        return vae


class MatchesUnpickles(Adapter):
    """Opens the file to see what is in it."""

    name = "curious"
    summary = "looks by unpickling"

    def matches(self, source) -> bool:
        if Native().matches(source):
            return True
        try:
            with source.path.open("rb") as stream:
                return "weights" in pickle.load(stream)
        except Exception:
            return False

    def load(self, source, options) -> VAE:
        return Native().load(source, options)


ADAPTER_FAULTS = {
    TrainMode: "model is in eval mode",
    TrainModeOutOfSight: "model is in eval mode",
    LogStdReadAsLogvar: "scale head is read in its own form",
    LogvarReadAsLogStd: "scale head is read in its own form",
    MutatesInput: "inputs and weights are left unchanged",
    MatchesUnpickles: "matches runs no code of the file",
}


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_a_faulty_adapter_is_caught_by_name(fault: type[Adapter], checkpoint: Path) -> None:
    assert ADAPTER_FAULTS[fault] in broken(check_adapter(fault(), checkpoint))


def test_a_sound_adapter_breaks_no_law(checkpoint: Path) -> None:
    assert broken(check_adapter(Native(), checkpoint)) == {}


# ------------------------------------------------------------------ analyses


class SoundAnalysis(Analysis):
    """Mean squared latent mean."""

    name = "sound"
    needs = frozenset({"mean"})

    def start(self, setup):
        super().start(setup)
        self.accumulators = {"square": Moments((setup.vae.latent_size,))}

    def update(self, batch):
        self.accumulators["square"].update(batch.array("mean") ** 2)

    def result(self, context):
        return {"square": self.variable(self.accumulators["square"].mean)}

    def variable(self, values):
        return Variable(("latent",), values, "mean of mu squared", "1")


class MeanOfMeans(SoundAnalysis):
    def update(self, batch):
        self.accumulators["square"].update((batch.array("mean") ** 2).mean(0, keepdims=True))


class OrderMatters(SoundAnalysis):
    """A running average that forgets."""

    def start(self, setup):
        super().start(setup)
        self.average = np.zeros(setup.vae.latent_size)

    def update(self, batch):
        for row in batch.array("mean") ** 2:
            self.average = 0.9 * self.average + 0.1 * row

    def result(self, context):
        return {"square": self.variable(self.average)}

    def state(self):
        return {"average": self.average}

    def restore(self, state):
        self.average = state["average"]


class DoesNotMerge(SoundAnalysis):
    """Sums in an attribute that no accumulator knows."""

    def start(self, setup):
        super().start(setup)
        self.total, self.count = np.zeros(setup.vae.latent_size), 0

    def update(self, batch):
        self.total = self.total + (batch.array("mean") ** 2).sum(0)
        self.count += len(batch.index)

    def result(self, context):
        return {"square": self.variable(self.total / self.count)}


class NoMerge(DoesNotMerge):
    """The same with a state, but no word of how two states become one."""

    def state(self):
        return {"total": self.total, "count": np.asarray(self.count)}

    def restore(self, state):
        self.total, self.count = state["total"], int(state["count"])


class RestoreAdds(NoMerge):
    """Merges, but a restore adds to what is there instead of taking its place."""

    def restore(self, state):
        self.total, self.count = self.total + state["total"], self.count + int(state["count"])

    def merge(self, other):
        self.total, self.count = self.total + other.total, self.count + other.count


class NoUnits(SoundAnalysis):
    def variable(self, values):
        return Variable(("latent",), values, "mean of mu squared", "")


FAULTS = {
    NotSymmetric: "tensor is symmetric",
    OffByTwo: "tensor is half the Hessian",
    MixesRows: "rows of a batch are independent",
    LogitsDisagree: "logits form equals the mean form",
    MeanOfMeans: "result does not depend on the batch size",
    OrderMatters: "result does not depend on the order of batches",
    DoesNotMerge: "shards merged equal one pass",
    NoMerge: "shards merged equal one pass",
    RestoreAdds: "shards merged from their saved states equal one pass",
    NoUnits: "every variable has units and a long name",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_metric_or_analysis_is_caught_by_name(fault: type[Metric | Analysis]) -> None:
    laws = check_metric(fault()) if issubclass(fault, Metric) else check_analysis(fault)
    assert FAULTS[fault] in broken(laws)


def test_a_sound_analysis_breaks_no_law() -> None:
    assert broken(check_analysis(SoundAnalysis)) == {}


# ------------------------------------------------------------------ the laws themselves


def test_at_least_twelve_faults_are_seeded() -> None:
    assert len(FAULTS) + len(ADAPTER_FAULTS) >= 12


KITS: dict[str, Callable[[Path], list[Law]]] = {
    "metric": lambda _: check_metric(Sound()),
    "adapter": lambda path: check_adapter(Native(), path),
    "analysis": lambda _: check_analysis(SoundAnalysis),
}


@pytest.mark.parametrize("kit", KITS)
def test_laws_have_names_of_their_own(kit: str, checkpoint: Path) -> None:
    names = [str(law) for law in KITS[kit](checkpoint)]
    assert len(set(names)) == len(names) > 5


def test_a_plugin_that_raises_breaks_the_law_it_was_tried_by() -> None:
    class Raises(Sound):
        def distortion(self, x: Any, x_hat: Any) -> Any:
            raise KeyError("weights")

    assert (
        "KeyError: 'weights'" in broken(check_metric(Raises()))["rows of a batch are independent"]
    )
