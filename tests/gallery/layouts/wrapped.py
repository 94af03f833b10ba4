"""The same kind of network, its state dict under other keys, prefixes, files and counters."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import nn

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, as_bce, digits_mlp, of_digits, of_table, table_mlp
from tests.gallery.layouts.shelf import TO_LINE, TO_UNIT, layout
from tests.gallery.own import Own


@of_digits("data_parallel.pt", "'module.' before every name (DataParallel)")
def data_parallel(network: Mlp, path: Path) -> None:
    torch.save(nn.DataParallel(network).state_dict(), path)


@of_table("compiled.pt", "'_orig_mod.' before every name (torch.compile)")
def compiled(network: Mlp, path: Path) -> None:
    names = torch.compile(network, backend="eager").state_dict()
    torch.save(names, path)


@of_table(
    "compiled_parts.pt",
    "encoder and decoder compiled and wrapped one by one, prefixes inside the names",
)
def compiled_parts(network: Mlp, path: Path) -> None:
    wrapped = copy.deepcopy(network)
    wrapped.encoder = torch.compile(wrapped.encoder, backend="eager")
    wrapped.decoder = nn.DataParallel(wrapped.decoder)
    torch.save(wrapped.state_dict(), path)


@of_digits("net_key.tar", "weights under 'net', beside accuracy and epoch")
def net_key(network: Mlp, path: Path) -> None:
    torch.save({"net": network.state_dict(), "acc": 0.0, "epoch": 12}, path)


@of_table("state_key.pth", "weights under 'state'", beta=0.5)
def state_key(network: Mlp, path: Path) -> None:
    torch.save({"state": network.state_dict(), "step": 1500}, path)


@of_digits("params_key.pth", "weights under 'params', two levels down")
def params_key(network: Mlp, path: Path) -> None:
    torch.save({"vae": {"params": network.state_dict()}}, path)


def _averaged(network: Mlp, reading: Own, steps: int = 300) -> Mlp:
    """Train on, roughly, and return the mean of the weights on the way; the network moves off."""
    average = torch.optim.swa_utils.AveragedModel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(len(reading.x), (50,))
        optimizer.zero_grad()
        reading.objective(reading.x[rows], None).mean().backward()
        optimizer.step()
        average.update_parameters(network)
    with torch.no_grad():  # the raw weights of an unlucky last step
        for weight in network.parameters():
            weight.add_(0.3 * weight.std() * torch.randn_like(weight) if weight.ndim > 1 else 0)
    return average.module


@layout(
    "ema_beside.pt", "digits.npy", "two state dicts of the same names, 'model' and 'ema'",
    TO_UNIT, wrong="the raw weights taken without a word",
)  # fmt: skip
def ema_beside(folder: Path) -> Own:
    network, reading = digits_mlp()
    ema = _averaged(network, reading)
    checkpoint = {"model": network.state_dict(), "ema": ema.state_dict(), "step": 1800}
    torch.save(checkpoint, folder / "ema_beside.pt")
    return as_bce(ema, reading.x)


@layout(
    "ema_flat.pt", "table.csv",
    "ema-pytorch: 'online_model.' and 'ema_model.' with counters in one state dict",
    TO_LINE, wrong="the online weights taken without a word",
)  # fmt: skip
def ema_flat(folder: Path) -> Own:
    network, reading = table_mlp()
    ema = _averaged(network, reading)
    state = {"initted": torch.tensor(True), "step": torch.tensor(300)}
    state.update({f"online_model.{k}": v for k, v in network.state_dict().items()})
    state.update({f"ema_model.{k}": v for k, v in ema.state_dict().items()})
    torch.save(state, folder / "ema_flat.pt")
    return Own(
        lambda x, _c: _posterior(ema, x), lambda z, _c: ema.decode(z), own.sse, "sse", 1.0,
        reading.x,
    )  # fmt: skip


def _posterior(network: Mlp, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, logvar = network.encode(x)
    return mean, (0.5 * logvar).exp()


@of_digits("swa.pt", "AveragedModel: 'module.' and a counter n_averaged")
def swa(network: Mlp, path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(network)
    average.update_parameters(network)
    torch.save(average.state_dict(), path)


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(64, 32)
        self.linear2 = nn.Linear(32, 5)
        self.linear3 = nn.Linear(32, 5)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.relu(self.linear1(x))
        return self.linear2(h), self.linear3(h)


def _in_two() -> tuple[_Encoder, nn.Module, Own]:
    """Return an encoder and a decoder that share no module, trained together."""
    encoder = _Encoder()
    decoder = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
    reading = Own(
        lambda x, _c: _posterior(encoder, x), lambda z, _c: decoder(z), own.bce, "bce", 1.0,
        own.digits()[0], others={"sse": own.sse},
    )  # fmt: skip
    own.fit(nn.ModuleList([encoder, decoder]), reading)
    return encoder, decoder, reading


@layout("split_keys.pt", "digits.npy", "encoder and decoder under separate keys", TO_UNIT)
def split_keys(folder: Path) -> Own:
    encoder, decoder, reading = _in_two()
    state = {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()}
    torch.save(state, folder / "split_keys.pt")
    return reading


@layout("split_files", "digits.npy", "vae_encoder.pth and vae_decoder.pth in one folder", TO_UNIT)
def split_files(folder: Path) -> Own:
    encoder, decoder, reading = _in_two()
    (folder / "split_files").mkdir(exist_ok=True)
    torch.save(encoder.state_dict(), folder / "split_files/vae_encoder.pth")
    torch.save(decoder.state_dict(), folder / "split_files/vae_decoder.pth")
    return reading


@of_table("weight_norm_old.pt", "weight norm as weight_g and weight_v", beta=0.5)
def weight_norm_old(network: Mlp, path: Path) -> None:
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("weight") and name.startswith(("encoder", "decoder")):
            length = value.norm(dim=1, keepdim=True)
            state[name + "_g"], state[name + "_v"] = length, value / length * 1.7
        else:
            state[name] = value
    torch.save(state, path)


@layout(
    "weight_norm.pt", "digits.npy", "weight norm as parametrizations.weight.original0 and 1",
    TO_UNIT,
)  # fmt: skip
def weight_norm(folder: Path) -> Own:
    network = Mlp()
    for part in (network.encoder[0], network.decoder[0], network.decoder[2], network.fc_mu):
        nn.utils.parametrizations.weight_norm(part)
    reading = as_bce(network, own.digits()[0])
    return own.kept(network, reading, folder / "weight_norm.pt")


@of_table(
    "numpy_names.npz",
    "arrays W1, b1 ... of shape (inputs, outputs), as JAX and numpy code keeps them",
)
def numpy_names(network: Mlp, path: Path) -> None:
    import numpy as np

    layers = {
        "enc_1": network.encoder[0], "enc_mu": network.fc_mu, "enc_logvar": network.fc_var,
        "dec_1": network.decoder[0], "dec_2": network.decoder[2],
    }  # fmt: skip
    arrays = {}
    for name, layer in layers.items():
        arrays[f"{name}_W"] = layer.weight.detach().numpy().T
        arrays[f"{name}_b"] = layer.bias.detach().numpy()
    np.savez(path, **arrays)


@of_digits("transposed.pt", "torch tensors kernel and bias, (inputs, outputs), from Flax")
def transposed(network: Mlp, path: Path) -> None:
    layers = {
        "encoder.fc1": network.encoder[0], "encoder.fc2_mean": network.fc_mu,
        "encoder.fc2_logvar": network.fc_var, "decoder.fc1": network.decoder[0],
        "decoder.fc2": network.decoder[2],
    }  # fmt: skip
    state = {}
    for name, layer in layers.items():
        state[f"{name}.kernel"] = layer.weight.detach().T.contiguous()
        state[f"{name}.bias"] = layer.bias.detach()
    torch.save(state, path)


@of_table("config_folder", "a folder of model.safetensors and config.json, as on a hub", beta=0.7)
def config_folder(network: Mlp, path: Path) -> None:
    from safetensors.torch import save_file

    path.mkdir(exist_ok=True)
    save_file(network.state_dict(), path / "model.safetensors")
    config = {"input_dim": 12, "hidden_dim": 24, "latent_dim": 4, "kl_weight": 0.7, "loss": "sse"}
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
