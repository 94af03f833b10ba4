"""Write docs/adapters.md: what each adapter reads, and what became of thirteen real files.

    python docs/make_adapters.py [--shared FOLDER] [--samples N]

The figures are measured here and now; the page changes only when they do.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.checkpoints.source import Source
from isoprobe.data.batches import prepare
from isoprobe.errors import IsoprobeError
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed

if TYPE_CHECKING:
    from isoprobe.contracts import VAE, Metric

HERE = Path(__file__).resolve().parent
MNIST, CELEBA = "mnist.npz:x_test", "celeba64_subset.zip"
BURGESS = "YannDubs+disentangling-vae"
GEOMETRY = "shagunuppal+Riemannian_Geometry_of_Deep_Generative_Models"


@dataclass(frozen=True)
class Case:
    """A real checkpoint and how it is tried.

    Attributes:
        path: below the folder of checkpoints.
        data: spec below the folder of data, or ``prior``.
        resize: side images are resized to.
        declaration: TOML file below docs/declarations.
        metric: where the file declares none.
        options: of the adapter.
        condition: held for all rows, where data of the model's own are not at hand.
        beta: as its authors say it, where the file does not.
    """

    path: str
    data: str = "prior"
    resize: int | None = None
    declaration: str | None = None
    metric: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    condition: float | None = None
    beta: float | None = None


CASES = (
    Case(f"{BURGESS}/VAE_mnist", MNIST, 32),
    Case(f"{BURGESS}/betaH_mnist", MNIST, 32),
    Case(f"{BURGESS}/VAE_celeba", CELEBA),
    Case("Schlumberger+joint-vae/trained_models/mnist", MNIST, 32),
    Case(f"{GEOMETRY}/MNIST/vae2.pth", MNIST, declaration="vae2.toml"),
    Case(f"{GEOMETRY}/CelebA/vae.pth", CELEBA, declaration="celeba_vae.toml"),
    Case("csinva+gan-vae-pretrained-pytorch/mnist_vae/weights/vae_epoch_25.pth", MNIST, beta=1.0),
    Case(
        "Sajjad-Shahali+Elliptic-Bitcoin-Anomaly-Detection/models/vae.pt",
        declaration="elliptic.toml",
    ),
    Case("jetnew+smawm/models/expert/vae.tar", declaration="smawm.toml"),
    Case("aamirmalik-dr+molecular-generative-models/models/vae.pt"),
    Case("JacobTh98+3dIT/models/vae_beta.keras", metric="sse"),
    Case("scverse+scvi-tools/tests/test_data/pre_logits_fix_scanvi/model.pt", condition=1000.0),
    Case("madebyollin+taesd/taef2_decoder.pth"),
)


def examine(case: Case, shared: Path, samples: int) -> list[str]:
    """Return the cells of a case's row."""
    source = Source(shared / "checkpoints" / case.path)
    options, name = dict(case.options), None
    if case.declaration is not None:
        name = "declared"
        options["declaration"] = str(HERE / "declarations" / case.declaration)
    try:
        adapter = installed().adapter_for(source, name)
        vae = adapter.load(source, options)
    except IsoprobeError as error:
        return ["unsupported", _relative(str(error), shared), "refused", "", "", "", ""]
    if case.condition is not None:
        vae = vae.held(torch.tensor([case.condition]))
    metric = installed().metric(vae.facts.metric or case.metric or "sse")
    data = case.data if case.data == "prior" else str(shared / "data" / case.data)
    x = read(data, vae, metric, samples, case.resize)
    figures = measure(vae, metric, x)
    assumed = [f"head {vae.facts.scale_head}", *vae.facts.assumptions]
    if vae.condition:
        assumed.append(vae.condition)
    if vae.conditional is not None:
        assumed.append(f"each sample at its own {vae.conditional.words}")
    if case.declaration is not None:
        assumed.append(f"[{case.declaration}](declarations/{case.declaration})")
    beta = case.beta if vae.facts.beta is None else vae.facts.beta
    declared = "unknown" if beta is None else f"{beta:g}"
    return [adapter.name, "; ".join(assumed), f"{metric.name}, {case.data}", *figures, declared]


def read(spec: str, vae: VAE, metric: Metric, samples: int, resize: int | None) -> torch.Tensor:
    """Return inputs of a data spec."""
    dataset = installed().data(spec, vae)
    try:
        prepared = prepare(dataset, vae, samples=samples, resize=resize, metric=metric)
        return prepared.batch(0, prepared.samples, "cpu", torch.float32)[0]
    finally:
        dataset.close()


def measure(vae: VAE, metric: Metric, x: torch.Tensor) -> list[str]:
    """Return reconstruction, KL and recovered beta as text."""
    needs = {"std", "kl", "stationarity", "distortion_draws"}
    probe = Probe(vae, metric, needs, ProbeOptions(seed=0))
    parts = [probe(np.arange(i, i + len(rows)), rows, vae=vae.on(rows)) for i, rows in _blocks(x)]
    kl, pull, std = (
        torch.cat([p[name] for p in parts]).double() for name in ("kl", "stationarity", "std")
    )
    distortion = torch.cat([p["distortion_draws"] for p in parts]).double().mean()
    active = kl.mean(0) > 0.01
    beta = "collapsed"
    if active.any():
        recovered = pull.mean(0)[active].sum() / (1 - (std**2).mean(0))[active].sum()
        beta = f"{float(recovered):.3g}" if recovered > 0 else "none under this metric"
    return [f"{float(distortion):.4g}", f"{float(kl.sum(1).mean()):.3g}", beta]


def _blocks(x: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    return [(i, x[i : i + 250]) for i in range(0, len(x), 250)]


def _relative(text: str, shared: Path) -> str:
    return text.replace(f"{shared}/checkpoints/", "").partition(". A part of it")[0]


def page(rows: list[list[str]]) -> str:
    """Return the whole page."""
    text = (HERE / "adapters.template").read_text()
    listed = [row for row in installed().listing() if row.kind == "adapter"]
    adapters = "".join(f"| `{row.name}` | {row.summary} |\n" for row in listed)
    body = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return text.replace("@ADAPTERS@", adapters.rstrip()).replace("@FILES@", body.rstrip())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        rows.append([f"`{case.path}`", *examine(case, arguments.shared, arguments.samples)])
        print(" | ".join(rows[-1]), flush=True)
    (HERE / "adapters.md").write_text(page(rows))


if __name__ == "__main__":
    main()
