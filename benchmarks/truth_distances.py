"""Measure distances, factors, truncation and the KL's parts where figures of another program are.

Run it as ``python -m benchmarks.truth_distances [distances kl bits truncation encode]``; without a
name it runs all. Real checkpoints and images lie in ``shared`` beside the checkout. Each line shows
what was found, what it is held to, and the processor's seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import isoprobe
from benchmarks.networks import DIGITS, SHARED
from isoprobe.derivatives.metric_tensor import OutputMetric, output_metric
from isoprobe.registry.lookup import installed
from isoprobe.run.settle import chosen_metric
from isoprobe.theory.kl_parts import kl_parts
from isoprobe.theory.truncation import curve

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODELS = SHARED / "checkpoints" / "YannDubs+disentangling-vae"
IMAGES = {"data": f"{DIGITS}:x_train,y_train", "resize": 32}
#: model, its data, samples, and the median of |dy| / d of a first trial
DISTANCES: tuple[tuple[Path, dict[str, Any], int | None, float], ...] = (
    (EXAMPLES / "toy_mix.safetensors", {}, 10_000, 1.000),
    (MODELS / "VAE_mnist", IMAGES, 3000, 0.81),
    (MODELS / "betaH_mnist", IMAGES, 3000, 0.85),
    (EXAMPLES / "digits.safetensors", {}, None, 0.78),
)
#: KL, sum I_j, sum KL(q_j || p), L and bound (c) of 10,000 rows, each with its error
PARTS = {
    "VAE_mnist": (
        (19.345, 0.038), (19.301, 0.038), (0.044, 0.003), (9.131, 0.004), (18.85, 0.09),
    ),
    "betaH_mnist": (
        (10.693, 0.025), (10.663, 0.025), (0.030, 0.002), (8.324, 0.014), (10.41, 0.07),
    ),
}  # fmt: skip
#: I(y; z_j) of VAE_mnist over 60,000 rows, with errors of 0.001 to 0.004
BITS = (0.155, 0.132, 0.633, 0.622, 0.065, 0.155, 0.280, 0.491, 0.612, 0.024)
BITS_ERROR = 0.004
#: held-out accuracy of a linear probe by the k most informative latents
PROBE = {1: 0.252, 2: 0.492, 3: 0.664, 5: 0.830, 8: 0.917, 10: 0.930}
#: and its Wilson interval, at most this far
PROBE_ERROR = 0.010
ROWS = (10_000, 100_000, 1_000_000)


def distances(pairs: int = 60) -> None:
    """|dy| / d of pairs of samples, beside a first trial's; straight lines; correlations."""
    for model, opening, samples, trial in DISTANCES:
        began = time.process_time()
        asked = {**opening, "samples": samples, "device": "cpu"}
        spec = f"geometry:pairs={pairs},effort=thorough,pictures=0"
        with isoprobe.analyze(model, analyses=[spec], **asked) as result:
            group = {name: value.values for name, value in result["geometry"].items()}
        ratio = group["distance_y"] / group["geodesic"]
        longer = group["line_y"] / group["geodesic"] - 1
        print(
            f"{model.stem}: |dy|/d {np.median(ratio):.3f}"
            f" ({float(group['global_isometry_low']):.3f}"
            f" to {float(group['global_isometry_high']):.3f}), trial {trial};"
            f" within 1 % {np.mean(abs(ratio - 1) <= 0.01):.2f} of {len(ratio)} pairs;"
            f" y-lines longer by {np.median(longer):.2%}, at most {longer.max():.2%};"
            f" z-lines {float(group['excess_z']):.2%};"
            " correlation with d: "
            + ", ".join(f"{n} {float(group[f'correlation_{n}']):.2f}" for n in ("y", "z", "chord"))
            + f"; unconverged {int(group['unconverged'])}; {time.process_time() - began:.0f} s",
            flush=True,
        )


def kl() -> None:
    """Parts of the KL of 10,000 rows, in errors from the table, and what they take."""
    for name, table in PARTS.items():
        codes = isoprobe.encode(MODELS / name, samples=None, device="cpu", **_first(10_000))
        began = time.process_time()
        parts = kl_parts(codes["mean"], codes["std"], seed=0)
        took = time.process_time() - began
        if parts.joint is None:
            raise SystemExit("10,000 rows give the joint")
        bounds = (parts.kl, parts.information_sum, parts.marginal_sum, parts.joint.lower,
                  parts.joint.upper[2])  # fmt: skip
        off = [
            abs(bound.value - value) / np.hypot(bound.se, error)
            for bound, (value, error) in zip(bounds, table, strict=True)
        ]
        print(
            f"{name}: KL, sum I_j, sum KL(q||p), L, U "
            + ", ".join(f"{bound.value:.3f} ({bound.se:.3f})" for bound in bounds)
            + f"; off by {', '.join(f'{each:.1f}' for each in off)} errors; {took:.1f} s",
            flush=True,
        )


def _first(count: int) -> dict[str, object]:
    """The first training images as their program read them."""
    with np.load(DIGITS) as arrays:
        x = torch.from_numpy(arrays["x_train"][:count])[:, None].float() / 255
    small = torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
    return {"data": small.numpy()}


def bits() -> None:
    """Bits of each latent about the digit, and the probe's curve."""
    began = time.process_time()
    with isoprobe.analyze(
        MODELS / "VAE_mnist", samples=None, device="cpu", analyses=["information:rows=60000"],
        **IMAGES,
    ) as result:  # fmt: skip
        group = {name: value.values for name, value in result["information"].items()}
    found = group["bits"][0]
    print(
        "I(y; z_j): " + " ".join(f"{each:.3f}" for each in found)
        + f"; off by at most {abs(found - BITS).max():.4f}, "
        f"permuted at most {group['bits_permuted'].max():.4f}; H(y) {group['entropy'][0]:.3f}"
    )  # fmt: skip
    curve = dict(zip(group["probe_latents"].tolist(), group["probe_accuracy"][0], strict=True))
    off = max(abs(curve[k] - value) for k, value in PROBE.items())
    print(
        "probe: " + " ".join(f"{curve[k]:.3f}" for k in PROBE)
        + f"; off by at most {off:.4f}, errors up to {PROBE_ERROR};"
        f" {time.process_time() - began:.0f} s",
        flush=True,
    )  # fmt: skip


def truncation(rows: int = 1000) -> None:
    """D(x_check, x_k) as importance predicts, from latents dropped one by one, and measured.

    The first step of the difference is that a drop is no small move, the second that latents
    which are dropped together do not add up.
    """
    for model, opening, samples, _ in DISTANCES[:2]:
        asked = {**opening, "samples": samples, "device": "cpu"}
        spec = f"truncation:pictures=0,rows={rows}"
        with isoprobe.analyze(model, analyses=[spec], **asked) as result:
            group = {name: value.values for name, value in result["truncation"].items()}
            mean = result.samples()["mean"]
        vae = isoprobe.load(model)
        view = output_metric(chosen_metric(installed(), None, vae), vae)
        alone = _alone(view, torch.from_numpy(mean)[:: max(len(mean) // rows, 1)].to(vae.dtype))
        dropped = curve(alone[group["order"]])[group["kept"]]
        print(f"{model.stem}: k; D(x, x_k), its error, predicted; D(x_check, x_k) predicted, from")
        print("  latents dropped one by one, measured")
        for k, *numbers in zip(
            group["kept"], group["distortion"], group["distortion_se"],
            group["distortion_predicted"], group["from_check_predicted"], dropped,
            group["from_check"], strict=True,
        ):  # fmt: skip
            print(f"  {k:>3} " + " ".join(f"{number:9.3f}" for number in numbers), flush=True)


def _alone(view: OutputMetric, mean: torch.Tensor) -> np.ndarray:
    """D(x_check, x) with each latent held at its mean, the others kept, ``(n,)``."""
    costs = []
    with torch.no_grad():
        check = view.decode(mean)
        own = view.apart(check, check)
        for j in range(mean.shape[1]):
            held = mean.clone()
            held[:, j] = mean[:, j].mean()
            costs.append(float((view.apart(check, view.decode(held)) - own).double().mean()))
    return np.array(costs)


_ENCODE = """
import sys, pathlib, re
from isoprobe.cli import main
assert main(["encode", sys.argv[1], "--data", sys.argv[2], "-o", sys.argv[3]]) == 0
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text()).group(1))
"""


def encode() -> None:
    """Peak memory of encoding ever more rows of a Parquet file into Parquet, and their numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    model = EXAMPLES / "toy_mix.safetensors"
    with tempfile.TemporaryDirectory() as name:
        for count in ROWS:
            data, out = Path(name) / "rows.parquet", Path(name) / "codes.parquet"
            draws = np.random.default_rng(0).normal(size=(16, count)).astype(np.float32)
            columns = {f"c{j}": column for j, column in enumerate(draws)}
            pq.write_table(pa.table(columns), data, row_group_size=10_000)
            out.unlink(missing_ok=True)
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _ENCODE, str(model), str(data), str(out)],
                capture_output=True, text=True, check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            took, read = time.perf_counter() - began, pq.read_table(out)
            some = isoprobe.encode(model, draws.T[-1000:])
            last = np.stack([read[f"mean_{j}"].to_numpy()[-1000:] for j in range(3)], axis=1)
            print(
                f"{count:>9,} rows: peak {int(done.stdout.split()[-1]) >> 10} MiB, {took:.1f} s;"
                f" {read.num_rows:,} rows read back, means off by"
                f" {abs(last - some['mean']).max():.1e}",
                flush=True,
            )


PARTS_OF_THIS: dict[str, Callable[[], None]] = {
    "kl": kl, "bits": bits, "truncation": truncation, "encode": encode, "distances": distances,
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or PARTS_OF_THIS:
        PARTS_OF_THIS[chosen]()
