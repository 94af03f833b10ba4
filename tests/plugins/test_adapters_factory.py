"""Any object with encode and decode becomes a model, or is told what it lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from isoprobe.checkpoints.source import Source
from isoprobe.contracts import Posterior
from isoprobe.errors import OptionError
from isoprobe_plugins.adapters.objects.factory import Factory


class Toy(nn.Module):
    """Linear encoder and decoder, with dropout that only eval mode switches off."""

    def __init__(self, returns="pair", latent=2):
        super().__init__()
        torch.manual_seed(0)
        self.enc = nn.Linear(6, 2 * latent)
        self.dec = nn.Linear(latent, 6)
        self.drop = nn.Dropout(0.5)
        self.returns = returns

    def encode(self, x):
        both = self.drop(self.enc(x.flatten(1)))
        mean, raw = both.chunk(2, 1)
        normal = torch.distributions.Normal(mean, (0.5 * raw).exp(), validate_args=False)
        return {
            "pair": (mean, raw),
            "swapped": torch.cat([raw, mean], 1),
            "halves": both,
            "interleaved": torch.stack([mean, raw], 2).flatten(1),
            "normal": normal,
            "independent": torch.distributions.Independent(normal, 1, validate_args=False),
            "diffusers": SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=normal.scale)),
            "posterior": Posterior(mean, normal.scale),
            "three": (mean, raw, mean),
            "mean": mean,
            "uneven": (mean, raw[:, :1]),
            "laplace": torch.distributions.Laplace(mean, normal.scale, validate_args=False),
            "nothing": None,
        }[self.returns]

    def decode(self, z):
        return self.dec(z).reshape(-1, 2, 3)


def build(path, returns="pair", latent=2):
    assert path.name == "weights.bin"
    return Toy(returns, latent)


def build_without_path():
    return Toy()


def only_decoder():
    return SimpleNamespace(decode=Toy().decode)


def plain_object():
    toy = Toy()
    return SimpleNamespace(model=toy, encode=toy.encode, decode=toy.decode, input_shape=(2, 3))


def spatial():
    return SimpleNamespace(
        encode=lambda x: (x[:, :1], torch.zeros_like(x[:, :1])),
        decode=lambda z: z.expand(-1, 2, -1, -1),
        input_shape=(2, 3, 4),
    )


def no_decode():
    return SimpleNamespace(encode=lambda x: x)


def wrong_decode():
    return SimpleNamespace(encode=lambda x: (x, x), decode=lambda z: z[:, :1], input_shape=[4])


def fails():
    raise KeyError("no such weight\nsecond line")


not_callable = 3


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"whatever")

    def load(function, **options):
        options = {"target": f"{__name__}:{function}", **options}
        return Factory().load(Source(path), {k: str(v) for k, v in options.items()})

    return load


X = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(3))


def expected():
    toy = Toy().eval()
    mean, raw = toy.enc(X.flatten(1)).chunk(2, 1)
    return mean, (0.5 * raw).exp()


@pytest.mark.parametrize(
    ("returns", "options"),
    [
        ("pair", {}),
        ("pair", {"head": "logvar"}),
        ("normal", {}),
        ("independent", {}),
        ("diffusers", {}),
        ("posterior", {}),
        ("halves", {"layout": "halves"}),
        ("swapped", {"layout": "swapped"}),
        ("interleaved", {"layout": "interleaved"}),
    ],
)
def test_every_return_form_gives_the_same_posterior(load, returns, options):
    vae = load("build", returns=returns, input_shape="2x3", **options)
    mean, std = expected()
    posterior = vae.encode(X)
    assert torch.allclose(posterior.mean, mean, atol=1e-6)
    assert torch.allclose(posterior.std, std, atol=1e-6)
    assert (vae.input_shape, vae.latent_shape) == ((2, 3), (2,))
    z = torch.randn(4, 2)
    assert torch.equal(vae.decode(z), Toy().decode(z))
    assumed = any("log variance" in sentence for sentence in vae.facts.assumptions)
    assert assumed == (
        returns in {"pair", "halves", "swapped", "interleaved"} and not (options.get("head"))
    )


def test_the_head_option_decides_the_scale(load):
    mean, std = expected()
    vae = load("build", input_shape="2,3", head="logstd")
    assert torch.allclose(vae.encode(X).std, std**2, atol=1e-6)
    assert vae.facts.scale_head == "logstd"
    assert not vae.facts.assumptions
    assert torch.allclose(vae.encode(X).mean, mean, atol=1e-6)


def test_declared_facts_arrive(load):
    vae = load("build", input_shape="2x3", input_range="0,1", metric="bce", beta="2.5",
               output="logits", dataset="mnist")  # fmt: skip
    facts = vae.facts
    assert (facts.metric, facts.beta, facts.beta_source) == ("bce", 2.5, "--option beta")
    assert (facts.input_range, facts.output_range) == ((0.0, 1.0), (0.0, 1.0))
    assert facts.dataset == "mnist"
    z = torch.randn(4, 2)
    assert torch.equal(vae.decode_logits(z), Toy().decode(z))
    assert torch.equal(vae.decode(z), Toy().decode(z).sigmoid())


def test_other_options_reach_the_function(load):
    assert load("build", latent="3", input_shape="2x3").latent_shape == (3,)
    with pytest.raises(OptionError, match=r"takes \(path, returns='pair', latent=2\)"):
        load("build", latnt="3", input_shape="2x3")


def test_shapes_can_come_from_either_side(load):
    assert load("build_without_path", latent_shape="2").input_shape == (2, 3)
    assert load("plain_object").latent_shape == (2,)
    assert load("plain_object").module is not None
    with pytest.raises(OptionError, match="'input_shape': '1x28x28'"):
        load("build_without_path")
    with pytest.raises(OptionError, match=r"latents of shape \(2,\), declared is \(3,\)"):
        load("build_without_path", latent_shape="3", input_shape="2x3")


def test_spatial_latents_are_flattened(load):
    vae = load("spatial")
    assert vae.latent_shape == (1, 3, 4)
    x = torch.rand(5, 2, 3, 4)
    assert torch.equal(vae.encode(x).mean, x[:, :1].flatten(1))
    assert vae.decode(torch.randn(5, 12)).shape == (5, 2, 3, 4)


def test_a_decoder_alone_is_taken(load):
    vae = load("only_decoder", latent_shape="2")
    assert vae.encode is None
    assert "no encode" in vae.facts.assumptions[0]
    with pytest.raises(OptionError, match="'latent_shape': '20'"):
        load("only_decoder")


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("build", {"returns": "three"}, "3 values"),
        ("build", {"returns": "mean"}, "one tensor of shape.*'layout': 'halves'"),
        ("build", {"returns": "uneven"}, "must be alike"),
        ("build", {"returns": "laplace"}, "Laplace"),
        ("build", {"returns": "nothing"}, "a NoneType"),
        ("build", {"input_shape": "7"}, r"encode fails on one sample of shape \(1, 7\)"),
        ("build", {"input_shape": "6"}, r"decode gives shape \(2, 3\), inputs have \(6,\)"),
        ("build", {"input_shape": "2y3"}, "written like 1x28x28"),
        ("build", {"input_range": "1,0"}, "low,high"),
        ("build", {"head": "logva"}, "did you mean 'logvar'"),
        ("build", {"output": "tanh"}, "linear, sigmoid, logits"),
        ("build", {"beta": "four"}, "a number"),
        ("bild", {}, "did you mean 'build'"),
        ("not_callable", {}, "no function"),
        ("no_decode", {}, "no method decode"),
        ("wrong_decode", {"input_shape": "4"}, r"decode gives shape \(1,\), inputs have \(4,\)"),
        ("fails", {}, "failed: KeyError: 'no such weight"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(load, target, options, message):
    with pytest.raises(OptionError, match=message) as caught:
        load(target, **{"input_shape": "2x3", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nonsense", "written module:function"),
        ("no_such_module_here:build", "does not import: ModuleNotFoundError"),
        ("no/such/file.py:build", "no such file"),
    ],
)
def test_targets_that_cannot_be_had(load, target, message):
    with pytest.raises(OptionError, match=message):
        load("x", target=target)


def test_a_file_is_a_target_too(load, tmp_path, monkeypatch):
    code = "import tests_sibling_part as part\ndef make():\n    return part.make()\n"
    (tmp_path / "my_model.py").write_text(code)
    (tmp_path / "tests_sibling_part.py").write_text(
        "import torch\n"
        "from types import SimpleNamespace\n"
        "def make():\n"
        "    return SimpleNamespace(encode=lambda x: (x, 0 * x), decode=lambda z: z,"
        " input_shape=[4])\n"
    )
    monkeypatch.chdir(tmp_path)
    for target in ("my_model:make", f"{tmp_path / 'my_model.py'}:make"):
        vae = load("x", target=target)
        assert vae.latent_shape == (4,)


def test_it_never_offers_itself(tmp_path):
    (tmp_path / "a").write_text("a")
    assert not Factory().matches(Source(tmp_path / "a"))
