"""Code inside a checkpoint runs with ``--trust`` and never without: a canary shows it."""

from __future__ import annotations

import json
import os
import pathlib
import pickle

import pytest
import torch
from torch import nn

from isoprobe import api
from isoprobe.cli import main
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.registry.lookup import installed


class Model(nn.Module):
    """A whole model, as torch.save pickles it; unpickling it leaves a canary behind."""

    canary = ""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.dec = nn.Linear(6, 4), nn.Linear(2, 6)

    def encode(self, x):
        return self.enc(x).chunk(2, 1)

    def decode(self, z):
        return torch.tanh(self.dec(z))

    def __setstate__(self, state):
        if Model.canary:
            pathlib.Path(Model.canary).touch()
        super().__setstate__(state)


class Payload:
    def __reduce__(self):
        return (os.system, (f"touch {Model.canary}",))


WRITERS = {
    "zip": torch.save,
    "legacy": lambda m, p: torch.save(m, p, _use_new_zipfile_serialization=False),
    "bare": lambda model, path: path.write_bytes(pickle.dumps(model)),
    "inside a dictionary": lambda model, path: torch.save({"model": model, "epoch": 3}, path),
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    place = tmp_path / "canary"
    monkeypatch.setattr(Model, "canary", str(place))
    return place


@pytest.mark.parametrize("way", sorted(WRITERS))
def test_a_whole_model_is_unpickled_with_trust_alone(tmp_path, canary, way):
    model, path = Model().eval(), tmp_path / "whole.pt"
    WRITERS[way](model, path)
    with pytest.raises(CheckpointError) as caught:
        api.load(path)
    assert "holding objects of" in str(caught.value)  # told, and none of them made
    assert "\n" not in str(caught.value)
    with pytest.raises(
        CheckpointError, match="trust=True, which lets that code do whatever you may"
    ):
        api.load(path, adapter="pickle", options={"input_shape": "6"})
    assert not canary.exists()
    vae = api.load(path, trust=True, options={"input_shape": "6"})
    assert canary.exists()
    assert vae.adapter == "pickle"
    x, z = torch.rand(3, 6), torch.randn(3, 2)
    mean, logvar = model.encode(x)
    assert torch.equal(vae.encode(x).mean, mean.detach())
    assert torch.allclose(vae.encode(x).std, (logvar / 2).exp().detach())
    assert torch.equal(vae.decode(z), model.decode(z).detach())


def test_no_adapter_runs_a_payload_without_trust(tmp_path, canary):
    for name, data in (("bare", pickle.dumps(Payload())), ("weights", None)):
        path = tmp_path / name
        torch.save({"fc1.weight": Payload()}, path) if data is None else path.write_bytes(data)
        for adapter in (None, *installed().names("adapter")):
            with pytest.raises(IsoprobeError):
                api.load(path, adapter=adapter, options={"target": "math:sin"}
                         if adapter == "factory" else {})  # fmt: skip
    assert not canary.exists()
    with pytest.raises(CheckpointError, match="unpickles to a int"):
        api.load(tmp_path / "bare", trust=True)
    assert canary.exists()  # the flag means what it says


def test_weights_that_need_no_code_are_read_without_even_when_trusted(tmp_path, canary):
    sizes = {"fc1": (3, 4), "fc21": (2, 3), "fc22": (2, 3), "fc3": (3, 2), "fc4": (4, 3)}
    state = {f"{name}.weight": torch.rand(size) for name, size in sizes.items()}
    state |= {f"{name}.bias": torch.rand(size[0]) for name, size in sizes.items()}
    torch.save({"state_dict": state, "arguments": Payload()}, tmp_path / "vae.pt")
    assert api.load(tmp_path / "vae.pt", trust=True).adapter == "tutorial-mlp"
    assert not canary.exists()


def test_a_class_that_is_not_here_is_one_line(tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(Model()).replace(b"test_adapters_trust", b"no_module_like_this"))
    with pytest.raises(CheckpointError, match="must be importable") as caught:
        api.load(path, trust=True)
    assert "\n" not in str(caught.value)


def test_the_commands_pass_the_flag_on(tmp_path, canary, capsys):
    path, result = tmp_path / "whole.pt", tmp_path / "r.h5"
    torch.save(Model(), path)
    assert main(["inspect", str(path), "--trust", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapter"] == "pickle"
    assert not canary.exists()  # looking runs nothing
    common = [str(path), "--option", "input_shape=6"]
    analyze = ["analyze", *common, "--metric", "sse", "--samples", "40", "--beta", "1",
               "--analysis", "anomaly", "--out", str(result)]  # fmt: skip
    score = ["score", *common, "--data", "prior", "--samples", "4", "--reference", str(result)]
    for command in (analyze, score):
        assert main(command) == 1
        assert "--trust" in capsys.readouterr().err
        assert not canary.exists()
        assert main([*command, "--trust"]) == 0
        assert canary.exists()
        canary.unlink()
