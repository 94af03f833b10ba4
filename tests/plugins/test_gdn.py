"""GDN and IGDN: formula, gradient, torch.func, exact inverse, bounds; the architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import jacfwd, jvp, vmap

import isoprobe
from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.errors import IsoprobeError
from isoprobe.testing import architectures as laws
from isoprobe_plugins.architectures.gdn import GdnConvolutional
from isoprobe_plugins.architectures.gdn_layers import BETA_MIN, Gdn, inverse
from tests import configs

CONFIG = configs.gdn(2, 8, 12, latents=3, channels=4, encoder_widths=[10], decoder_widths=[9])
PAPER = {"input_shape": [3, 64, 64], "latent_size": 32}


def layer(inverted=False, channels=3, seed=0):
    """A layer whose every weight is away from its bound, in double precision."""
    torch.manual_seed(seed)
    gdn = Gdn(channels, inverted=inverted).double()
    with torch.no_grad():
        gdn.root_beta.uniform_(0.5, 1.5)
        gdn.root_gamma.uniform_(0.1, 0.6)
    return gdn


def image(channels=3, seed=1, size=(2, 4)):
    return torch.randn(
        2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("inverted", [False, True])
def test_each_value_is_the_formula_written_out(inverted):
    gdn, u = layer(inverted), image()
    v = gdn(u)
    beta, gamma = gdn.beta, gdn.gamma
    for b, i, h, w in [(0, 0, 0, 0), (1, 2, 1, 3), (0, 1, 1, 2)]:
        pool = beta[i] + sum(gamma[i, j] * u[b, j, h, w] ** 2 for j in range(3))
        expected = u[b, i, h, w] * (pool**0.5 if inverted else pool**-0.5)
        torch.testing.assert_close(v[b, i, h, w], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("inverted", [False, True])
def test_gradients_are_those_of_finite_differences(inverted):
    gdn = layer(inverted)
    leaves = [image().requires_grad_(), gdn.root_beta, gdn.root_gamma]

    def run(u, root_beta, root_gamma):
        tensors = {"root_beta": root_beta, "root_gamma": root_gamma}
        return torch.func.functional_call(gdn, tensors, (u,))

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("inverted", [False, True])
def test_forward_mode_and_vmap_agree_with_reverse_mode(inverted):
    gdn, u = layer(inverted), image(size=(1, 2))[:1]
    reverse = torch.autograd.functional.jacobian(gdn, u)
    torch.testing.assert_close(jacfwd(gdn)(u), reverse, rtol=1e-12, atol=1e-12)
    tangents = torch.stack([image(seed=s, size=(1, 2))[:1] for s in range(4)])
    pushed = vmap(lambda t: jvp(gdn, (u,), (t,))[1])(tangents)
    expected = torch.einsum("bchwdefg,tdefg->tbchw", reverse, tangents)
    torch.testing.assert_close(pushed, expected, rtol=1e-12, atol=1e-12)


def test_gdn_is_inverted_exactly():
    gdn, u = layer(channels=5), 3 * image(channels=5)
    torch.testing.assert_close(inverse(gdn, gdn(u)), u, rtol=1e-9, atol=1e-12)


def test_an_output_that_gdn_never_gives_has_no_inverse():
    gdn = layer()
    beyond = torch.full((1, 3, 1, 1), 100.0, dtype=torch.float64)
    with pytest.raises(ValueError, match="no input"):
        inverse(gdn, beyond)


def test_without_coupling_igdn_undoes_gdn():
    """With gamma 0 both scale each channel by a constant, and one undoes the other."""
    gdn, igdn, u = layer(), layer(inverted=True), image()
    for part in (gdn, igdn):
        with torch.no_grad():
            part.root_beta.copy_(torch.tensor([0.5, 1.0, 2.0]))
            part.root_gamma.zero_()
    torch.testing.assert_close(igdn(gdn(u)), u, rtol=1e-12, atol=0)
    assert not torch.allclose(gdn(u), u)


def test_weights_stay_within_their_bounds_and_come_back_from_them():
    gdn = layer()
    with torch.no_grad():
        gdn.root_beta.fill_(-3.0)
        gdn.root_gamma.fill_(-3.0)
    torch.testing.assert_close(gdn.beta.detach(), torch.full((3,), BETA_MIN).double())
    assert torch.equal(gdn.gamma, torch.zeros(3, 3).double())
    assert torch.isfinite(gdn(image())).all()
    # a loss that falls as gamma grows: without projection its gradient is 0 for ever
    gdn(image()).square().sum().backward()
    assert torch.equal(gdn.root_gamma.grad, torch.zeros(3, 3).double())
    gdn.project()
    gdn.zero_grad()
    gdn(image()).square().sum().backward()
    assert (gdn.root_gamma.grad < 0).all()


def test_a_new_layer_has_beta_one_and_a_tenth_of_the_identity():
    gdn = Gdn(4)
    torch.testing.assert_close(gdn.beta, torch.ones(4))
    torch.testing.assert_close(gdn.gamma, 0.1 * torch.eye(4))


# --------------------------------------------------------------------------- architecture


def test_the_architecture_keeps_the_laws_of_architectures():
    for held in laws.check_architecture(GdnConvolutional(), CONFIG):
        held()


def test_the_papers_network_has_the_layers_of_appendix_c_2():
    with torch.device("meta"):
        networks = GdnConvolutional().build(PAPER)

    def kinds(module):
        return [type(m).__name__ for m in module.modules() if not list(m.children())]

    conv, dense = ["Conv2d", "Gdn"] * 4, ["Linear", "Softplus"]
    assert kinds(networks.encoder) == [*conv, *dense, "Linear", "Linear"]
    back = ["ConvTranspose2d", "Gdn"] * 4
    assert sorted(kinds(networks.decoder)) == sorted([*dense, *dense, *back])
    sides = [m.kernel_size[0] for m in networks.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert sides == [9, 5, 5, 5]
    mean, std = networks.encoder(torch.empty(2, 3, 64, 64, device="meta"))
    assert mean.shape == std.shape == (2, 32)
    assert networks.decoder(mean).shape == (2, 3, 64, 64)


def test_a_checkpoint_of_it_is_analysed_by_its_own_description(tmp_path):
    torch.manual_seed(0)
    networks = GdnConvolutional().build(CONFIG)
    manifest = Manifest(
        FORMAT_VERSION, "gdn", CONFIG, 3, Objective("ssim:window=3", 0.01), input_range=(0.0, 1.0)
    )
    path = tmp_path / "gdn.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    x = torch.rand(6, 2, 8, 12)
    vae = isoprobe.load(path)
    torch.testing.assert_close(
        vae.decode(vae.encode(x).mean), networks.decoder(networks.encoder(x)[0])
    )
    with isoprobe.analyze(path, data=x.numpy(), analyses=["isometry"], device="cpu") as result:
        assert result["isometry"]["norm_mean"].values.shape == (3,)
        assert (result["isometry"]["norm_mean"].values > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": [5, 4]}, "odd side; found 4"),
        ({"input_shape": [2, 8, 10]}, "divisible by 4; found 8 x 10"),
        ({"kernels": []}, "length >= 1"),
        ({"head": "nonsense"}, "nonsense"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(change, message):
    with pytest.raises(IsoprobeError, match=message) as caught:
        GdnConvolutional().build(CONFIG | change)
    assert "\n" not in str(caught.value)
