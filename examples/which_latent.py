"""Which latent carries the label: bits of two factors of the digits in each latent.

The factors are taken from the pictures themselves: how far to the right their ink lies, and how
much of it is in the middle. Labels or factors of your own go into a file the same way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import isoprobe

HERE = Path(__file__).parent


def factors(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Mean column of the ink, and ink in the middle, of pictures of 8 x 8, ``(N,)`` each."""
    values = pictures.reshape(-1, 8, 8).astype(float)
    return {
        "right": (values.sum(axis=1) @ np.arange(8)) / values.sum(axis=(1, 2)),
        "middle": values[:, 3:5, 3:5].sum(axis=(1, 2)),
    }


def main() -> None:
    """Print the matrix of bits, the gaps and the probe, and check what they claim."""
    x = np.load(HERE / "digits.npy")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        np.savez(path, x=x, **factors(x))
        with isoprobe.analyze(
            HERE / "digits.safetensors",
            f"{path}:x,right,middle",
            samples=None,
            analyses=["information"],
        ) as result:
            group = {name: value.values for name, value in result["information"].items()}
    names = [str(name) for name in group["factor_name"]]
    for k, name in enumerate(names):
        bits = "  ".join(f"{value:4.2f}" for value in group["bits"][k])
        print(f"{name:>6} [bit of {group['entropy'][k]:.2f}]: {bits}")
        print(
            f"       most in latent {group['first'][k]}, then {group['second'][k]}; gap "
            f"{group['gap'][k]:.2f} (s.e. {group['gap_se'][k]:.2f}); a linear probe on the means "
            f"of all latents reads {group['probe_bits'][k, -1]:.2f} bits"
        )
    idle = [0, 1, 8]
    assert (group["bits_low"][:, idle] <= 0).all()  # idle latents tell nothing, and it shows
    assert (group["bits_low"].max(axis=1) > 0.05).all()
    assert (group["bits_permuted"] < 0.2).all()
    assert (group["probe_accuracy_low"][:, -1] > group["majority"]).all()
    assert (group["gap"] < 0.5).all()  # no latent is one of them alone


if __name__ == "__main__":
    main()
