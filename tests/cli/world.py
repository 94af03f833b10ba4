"""Make the files that documented commands name, small, so that the commands run as they stand.

A page's commands run in the order of the page, in a folder that holds these files, so that one may
take what an earlier one wrote.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow
import torch
from pyarrow import parquet

from isoprobe_trainers.table import train as table

ROOT = Path(__file__).resolve().parents[2]
ROWS = 160
#: the class that documented commands name, and a function that builds it
CODE = """
import torch


class VAE(torch.nn.Module):
    def __init__(self, hidden=16, latents=3):
        super().__init__()
        self.fc1 = torch.nn.Linear(64, hidden)
        self.fc21 = torch.nn.Linear(hidden, latents)
        self.fc22 = torch.nn.Linear(hidden, latents)
        self.fc3 = torch.nn.Linear(latents, hidden)
        self.fc4 = torch.nn.Linear(hidden, 64)

    def encode(self, x):
        h = torch.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def decode(self, z):
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(z))))

    def forward(self, x):
        mean, logvar = self.encode(x)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        return self.decode(z), mean, logvar


Vae = VAE


def build(path):
    model = VAE()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model
"""
#: names of the same layers in a file that has to be declared, and the declaration
RENAMED = {"fc1": "enc", "fc21": "mu", "fc22": "logvar", "fc3": "dec", "fc4": "out"}
TOML = """
input_shape = [64]
input_range = [0, 1]
encoder = [{ linear = "enc" }, "relu"]
head = { mean = "mu", scale = "logvar", form = "logvar" }
decoder = [{ linear = "dec" }, "relu", { linear = "out" }, "sigmoid"]
"""


def make(folder: Path, shared: Path) -> None:
    """Fill a folder with every file that documented commands name.

    Args:
        folder: empty.
        shared: real weights and data.
    """
    _rows(folder)
    _tables(folder)
    _models(folder)
    for name in ("weights", "folder", "VAE_mnist"):
        shutil.copytree(
            shared / "checkpoints" / "YannDubs+disentangling-vae" / "VAE_mnist", folder / name
        )
    with np.load(shared / "data" / "mnist.npz") as real:
        parts = {name: real[name][:ROWS] for name in ("x_train", "y_train", "x_test")}
    np.savez(folder / "mnist.npz", **parts)


def _rows(folder: Path) -> None:
    """Rows of 64 values in [0, 1], under the names that pages give to data."""
    digits = np.load(ROOT / "examples" / "digits.npy").astype(np.float32) / 255
    digits = digits.reshape(len(digits), 64)
    for place, name in enumerate(("images", "x", "test", "train", "normal", "new")):
        np.save(folder / f"{name}.npy", digits[place * 100 : place * 100 + ROWS])
    (folder / "rows").mkdir()
    columns = {f"pixel{i:02}": digits[:ROWS, i] for i in range(64)}
    parquet.write_table(pyarrow.table(columns), folder / "rows" / "part.parquet")
    np.savez(folder / "digits.npz", x_test=digits[:ROWS].reshape(-1, 8, 8))
    x, chance = digits[:ROWS], np.random.default_rng(0)
    np.savez(folder / "faces.npz", x=x, age=chance.random(ROWS), glasses=np.arange(ROWS) % 2)
    heading = ",".join([*(f"pixel{i}" for i in range(64)), "class"])
    labelled = np.column_stack([x, np.arange(ROWS) % 3])
    np.savetxt(folder / "table.csv", labelled, "%.6g", ",", header=heading, comments="")
    heading, told = heading.replace("class", "patient"), np.column_stack([x, np.arange(ROWS)])
    np.savetxt(folder / "ward.csv", told, "%.6g", ",", header=heading, comments="")


def _tables(folder: Path) -> None:
    """Tables of three columns with ids, sites and days, and the models of them."""
    chance = np.random.default_rng(1)

    def write(name: str, count: int, odd: bool) -> None:
        rows = chance.normal(size=(count, 2)) @ chance.normal(size=(2, 3))
        rows += 0.2 * chance.normal(size=rows.shape)
        lines = ["a,b,c,site,day,patient,odd"]
        for i, (a, b, c) in enumerate(rows):
            label = int(odd and i % 20 == 19)
            lines.append(f"{a:.6g},{b:.6g},{c:.6g},site{i % 2},{i // 40},p{i // 4},{label}")
        (folder / name).write_text("\n".join(lines) + "\n")

    for name, count in (("normal.csv", 400), ("new.csv", ROWS)):
        write(name, count, odd=False)
    write("data.csv", 600, odd=True)
    (folder / "made").mkdir()
    spec = f"{folder}/normal.csv:columns=a,b,c"
    made = table.train(spec, folder / "made", reference=0)
    shutil.move(made.checkpoint, folder / "m.safetensors")
    shutil.rmtree(folder / "made")


def _models(folder: Path) -> None:
    """Weights under every name, with the class that builds them."""
    torch.manual_seed(0)
    for name in ("model", "one", "two"):
        shutil.copy(ROOT / "examples" / "digits.safetensors", folder / f"{name}.safetensors")
    shutil.copy(ROOT / "examples" / "digits.npy", folder / "digits.npy")
    (folder / "examples").mkdir()
    for name in ("digits.safetensors", "digits.npy"):
        shutil.copy(ROOT / "examples" / name, folder / "examples" / name)
    weights = _trained().state_dict()
    for name in ("net.py", "models.py"):
        (folder / name).write_text(CODE)
    for name in ("weights.pt", "vae.pt", "model.pt", "w.pt"):
        torch.save(weights, folder / name)
    renamed = {}
    for key, values in weights.items():
        layer, _, part = key.partition(".")
        renamed[f"{RENAMED[layer]}.{part}"] = values
    torch.save(renamed, folder / "vae.pth")
    (folder / "vae.toml").write_text(TOML)
    (folder / "run").mkdir()
    runs = folder / "lightning_logs" / "version_0" / "checkpoints"
    runs.mkdir(parents=True)
    for step in (200, 400):
        torch.save(weights, folder / "run" / f"step={step}.pt")
        kept = {"state_dict": {f"net.{k}": v for k, v in weights.items()}, "global_step": step}
        torch.save(kept, runs / f"epoch={step // 16 - 1}-step={step}.ckpt")
    kept = {**kept, "pytorch-lightning_version": "2.0.0", "epoch": 24}
    torch.save(kept, runs / "epoch=24-step=400.ckpt")


def _trained(steps: int = 800) -> torch.nn.Module:
    """The class fitted to digits by cross entropy at beta 1, so that its loss can be told."""
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(CODE, scope)
    model = scope["VAE"]()
    x = torch.from_numpy(np.load(ROOT / "examples" / "digits.npy").astype(np.float32) / 255)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        x_hat, mean, logvar = model(batch)
        distortion = torch.nn.functional.binary_cross_entropy(x_hat, batch, reduction="sum")
        rate = 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum()
        optimizer.zero_grad()
        ((distortion + rate) / len(batch)).backward()
        optimizer.step()
        schedule.step()
    return model
