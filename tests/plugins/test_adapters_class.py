"""A class of the user's own is filled with all of a file's weights, or the file is refused."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import isoprobe
from isoprobe.cli.main import main

CODE = """
import torch
from torch import nn
class VAE(nn.Module):
    def __init__(self, input_dim=12, hidden_dim=24, latent_dim=3):
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.fc_mu = nn.Linear(hidden_dim, latent_dim)
        self.fc_logvar = nn.Linear(hidden_dim, latent_dim)
        self.fc3 = nn.Linear(latent_dim, hidden_dim)
        self.fc4 = nn.Linear(hidden_dim, input_dim)
    def encode(self, x):
        h = torch.tanh(self.fc1(x))
        return self.fc_mu(h), self.fc_logvar(h)
    def decode(self, z):
        return self.fc4(torch.tanh(self.fc3(z)))
    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.decode(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar
class Needs(VAE):
    def __init__(self, input_dim, hidden_dim, latent_dim):
        super().__init__(input_dim, hidden_dim, latent_dim)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CODE)
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 12)).astype("float32"))
    return tmp_path


def network(name: str = "VAE", **arguments: int):
    space: dict = {}
    exec(CODE, space)
    torch.manual_seed(1)
    return space[name](**arguments)


def analysed(file: str, *more: str, data: str = "x.npy") -> int:
    words = ["analyze", file, "--class", "net.py:VAE", "--data", data, "--metric", "sse"]
    return main([*words, "--beta", "1", "--analysis", "importance", "--json", *more])


def kl(model, rows=None) -> float:
    with torch.no_grad():
        mean, logvar = model.encode(torch.from_numpy(np.load("x.npy")) if rows is None else rows)
        return float(0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1).mean())


def found(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def wrapped(state: dict, between: str) -> dict:
    return {f"{between}{name}": tensor for name, tensor in state.items()}


def split(state: dict) -> dict:
    decoder = {n: t for n, t in state.items() if n.startswith(("fc3", "fc4"))}
    return {"a": {n: t for n, t in state.items() if n not in decoder}, "b": decoder}


LAYOUTS = {
    "plain": lambda state: state,
    "checkpoint": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"state": {}}},
    "deep": lambda state: {"a": {"b": {"c": state}}},
    "DataParallel": lambda state: wrapped(state, "module."),
    "compiled": lambda state: wrapped(state, "_orig_mod."),
    "both": lambda state: wrapped(state, "module._orig_mod."),
    "Lightning": lambda state: {"state_dict": wrapped(state, "model."), "hyper_parameters": {}},
    "SWA": lambda state: {**wrapped(state, "module."), "n_averaged": torch.tensor(4)},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_are_found_at_any_depth_and_under_any_wrapper(folder, capsys, name):
    model = network()
    torch.save(LAYOUTS[name](model.state_dict()), "vae.pt")
    assert analysed("vae.pt") == 0
    assert found(capsys)["summary"]["kl_total"] == pytest.approx(kl(model), rel=1e-4)


def test_safetensors_are_read_and_the_result_is_signed_with_the_files_hash(folder, capsys):
    import hashlib

    model = network()
    save_file(model.state_dict(), "vae.safetensors")
    assert analysed("vae.safetensors", "--out", "r.h5") == 0
    said = found(capsys)
    assert said["summary"]["kl_total"] == pytest.approx(kl(model), rel=1e-4)
    right = hashlib.sha256(Path("vae.safetensors").read_bytes()).hexdigest()
    assert attributes("r.h5")["model_sha256"] == right


def attributes(path: str) -> dict:
    from isoprobe.results.reader import Result

    with Result.open(path) as result:
        return dict(result.attrs)


@pytest.mark.parametrize("name", ["VAE", "Needs"])
def test_arguments_are_read_off_the_shapes(folder, capsys, name):
    model = network("VAE", hidden_dim=17, latent_dim=5)
    torch.save(model.state_dict(), "vae.pt")
    assert analysed("vae.pt", "--class", f"net.py:{name}") == 0
    assert found(capsys)["summary"]["kl_total"] == pytest.approx(kl(model), rel=1e-4)


def test_arguments_saved_beside_the_weights_are_taken(folder, capsys):
    model = network(hidden_dim=9, latent_dim=4)
    kept = {"hidden_dim": 9, "latent_dim": 4, "lr": 0.1}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": kept}, "vae.ckpt")
    assert analysed("vae.ckpt") == 0
    assert found(capsys)["summary"]["kl_total"] == pytest.approx(kl(model), rel=1e-4)


@pytest.mark.parametrize(
    "kept", [{"hidden_dim": 10**7}, {"latent_dim": 10**12}, {"hidden_dim": [[[[1]]]]}]
)
def test_arguments_of_a_file_that_do_not_fit_its_weights_build_nothing(folder, capsys, kept):
    model = network(hidden_dim=9, latent_dim=4)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": kept}, "vae.ckpt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert analysed("vae.ckpt") == 0  # read off the shapes
    assert found(capsys)["summary"]["kl_total"] == pytest.approx(kl(model), rel=1e-4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_no_argument_of_a_file_is_the_place_of_another(folder):
    Path("mine.py").write_text(
        Path("net.py").read_text()
        + "\n\nclass Writes(VAE):\n    def __init__(self, latent_dim=3, path=None):\n"
        "        super().__init__(latent_dim=latent_dim)\n"
        "        if path:\n            open(path, 'w').close()\n"
    )
    model = network(latent_dim=5)
    for place in ("./canary", f"{folder}/canary", "canary.pt"):
        kept = {"latent_dim": 5, "path": place}
        torch.save({"state_dict": model.state_dict(), "hyper_parameters": kept}, "vae.ckpt")
        assert analysed("vae.ckpt", "--class", "mine.py:Writes") == 0
        assert not Path(place).exists()


def test_arguments_that_are_typed_are_taken(folder, capsys):
    torch.save(network(latent_dim=2).state_dict(), "vae.pt")
    assert analysed("vae.pt", "--class-arg", "latent_dim=2") == 0
    assert found(capsys)["summary"]["latents"] == 2


def test_of_two_sets_of_weights_the_averaged_is_taken_both_are_named_and_either_chosen(
    folder, capsys
):
    raw, averaged = network(), network()
    with torch.no_grad():
        averaged.fc_mu.weight.mul_(2)
    torch.save({"model": raw.state_dict(), "ema": averaged.state_dict()}, "vae.pt")
    assert analysed("vae.pt", "--out", "r.h5") == 0
    assert found(capsys)["summary"]["kl_total"] == pytest.approx(kl(averaged), rel=1e-4)
    notes = " ".join(attributes("r.h5")["notes"])
    assert "'model'" in notes and "'ema'" in notes
    for chosen, right in (("model", raw), ("ema", averaged)):
        assert analysed("vae.pt", "--option", f"weights={chosen}") == 0
        assert found(capsys)["summary"]["kl_total"] == pytest.approx(kl(right), rel=1e-4)
    torch.save({"best": raw.state_dict(), "last": averaged.state_dict()}, "vae.pt")
    assert analysed("vae.pt") == 1
    assert "weights=" in capsys.readouterr().err


BAD = {
    "junk": lambda: Path("bad.pt").write_text("garbage\n"),
    "another": lambda: torch.save({"fc1.weight": torch.zeros(3, 3)}, "bad.pt"),
    "one missing": lambda: torch.save(
        {n: t for n, t in network().state_dict().items() if n != "fc4.bias"}, "bad.pt"
    ),
    "one too many": lambda: torch.save(
        {**network().state_dict(), "fc9.weight": torch.zeros(2, 2)}, "bad.pt"
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("how", ["class", "factory"])
def test_a_file_with_other_weights_is_refused_never_analysed(folder, capsys, name, how):
    BAD[name]()
    if how == "class":
        assert analysed("bad.pt") == 1
    else:
        given = ["--adapter", "factory", "--option", "target=net.py:VAE"]
        given += ["--option", "input_shape=12", "--data", "x.npy", "--metric", "sse"]
        assert main(["analyze", "bad.pt", *given]) == 1
    assert "bad.pt" in capsys.readouterr().err


def test_what_a_function_never_opens_is_never_signed(folder, capsys):
    Path("other.py").write_text("from net import VAE\ndef build():\n    return VAE()\n")
    Path("junk.pt").write_text("garbage\n")
    vae = isoprobe.load(
        "junk.pt", adapter="factory", options={"target": "other.py:build", "input_shape": "12"}
    )
    assert vae.sha256 == ""
    assert any("not opened" in note for note in vae.facts.assumptions)


def test_a_pickle_that_would_run_code_is_not_run(folder, capsys):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (Path("ran"),))

    torch.save({"state_dict": network().state_dict(), "x": Bomb()}, "vae.pt")
    analysed("vae.pt")
    assert not Path("ran").exists()


def test_arguments_without_a_class_are_refused(folder, capsys):
    torch.save(network().state_dict(), "vae.pt")
    assert main(["analyze", "vae.pt", "--class-arg", "a=1"]) == 1
    assert "--class" in capsys.readouterr().err
