"""A live module is read as its author meant it, or refused with lines to paste; never otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import isoprobe
from tests.plugins.live_models import KINDS, Body, right, rows, trained


def analysed(model: object, x: torch.Tensor, metric: str = "bce") -> dict[str, float]:
    with isoprobe.analyze(model, x, metric=metric, analyses=["importance"]) as result:
        columns = result.columns()
        return {
            "kl": float(columns["kl"].values.mean()),
            "distortion": float(columns["distortion"].values.mean()),
            "beta": float(result.attrs["beta"]),
            "notes": "\n".join(result.attrs["notes"]),
        }


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.refused])
def test_a_model_is_read_as_its_author_meant(name):
    kind = KINDS[name]
    x = rows(kind.shape)
    model = trained(kind.make(), x)
    found = analysed(model, x)
    assert found["kl"] == pytest.approx(right(model, x), rel=2e-3)
    assert found["beta"] == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.refused])
def test_a_model_that_cannot_be_read_is_refused_by_what_it_is(name):
    kind = KINDS[name]
    x = rows(kind.shape)
    with pytest.raises(isoprobe.IsoprobeError) as caught:
        analysed(trained(kind.make(), x, steps=100), x)
    for word in kind.refused:
        assert word in str(caught.value) or (word == "random" and "each time" in str(caught.value))


def test_an_untrained_model_whose_scale_nothing_tells_is_refused_and_a_word_is_enough():
    torch.manual_seed(0)
    model = KINDS["SilentLogStd"].make().eval()
    x = rows()
    with pytest.raises(isoprobe.IsoprobeError, match="head="):
        analysed(model, x)
    found = analysed(isoprobe.wrap(model, head="logstd"), x)
    assert found["kl"] == pytest.approx(right(model, x), rel=1e-4)


def test_what_the_caller_says_goes_before_what_is_found():
    x = rows()
    model = trained(KINDS["SilentSwapped"].make(), x)
    wrapped = isoprobe.wrap(model, mean="1", scale="0", head="logvar")
    assert analysed(wrapped, x)["kl"] == pytest.approx(right(model, x), rel=1e-4)


def test_functions_of_the_callers_own_are_enough_for_anything():
    x = rows()
    model = trained(Body(), x)
    wrapped = isoprobe.wrap(model, encode=model.heads, decode=model.values, head="logvar")
    assert analysed(wrapped, x)["kl"] == pytest.approx(right(model, x), rel=1e-4)


class Logits(Body):
    logits = True

    def encode(self, x):
        return torch.distributions.Normal(*self.posterior(x))

    def decode(self, z):
        return self.values(z)


class Around(nn.Module):
    """A model whose decoder's output becomes something else."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def encode(self, x):
        return self.inner.encode(x)

    def decode(self, z):
        return self.change(self.inner.decode(z))


def test_logits_are_read_as_logits_and_give_the_distortion_of_their_probabilities():
    x = rows()
    model = trained(Logits(), x)
    found = analysed(model, x)

    same = analysed(Around(model, torch.sigmoid), x)
    assert found["distortion"] == pytest.approx(same["distortion"], rel=1e-4)
    assert found["beta"] == pytest.approx(same["beta"], rel=1e-3)
    assert "logits" in found["notes"]


def test_values_outside_a_metrics_domain_that_are_no_logits_are_refused_never_clamped():
    x = rows()
    model = trained(Logits(), x)

    with pytest.raises(isoprobe.IsoprobeError, match="mean input"):
        analysed(Around(model, lambda u: 4 - 3 * torch.sigmoid(u)), x)


def test_a_vae_whose_decoder_leaves_the_metrics_domain_is_refused_too():
    x = rows()
    model = trained(Logits(), x)
    vae = isoprobe.VAE(
        model.values, lambda rows: isoprobe.Posterior(*model.posterior(rows)), (12,), (3,)
    )
    with pytest.raises(isoprobe.IsoprobeError, match="logits"):
        isoprobe.analyze(vae, x, metric="bce", analyses=["importance"])


def test_a_model_without_data_is_told_what_is_needed():
    with pytest.raises(isoprobe.IsoprobeError, match=r"isoprobe\.analyze\(model, x"):
        isoprobe.analyze(Body(), metric="bce")


def test_what_is_no_model_is_refused_in_one_line():
    with pytest.raises(isoprobe.IsoprobeError, match="found a int"):
        isoprobe.analyze(3, rows(), metric="bce")
