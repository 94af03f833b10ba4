"""How many latents do I need: distortion with only the most important ones kept.

PCA users read a number of components off cumulative variance. Here the distortion itself is
measured for every number of latents, beside what importance predicts; the idle latents are then
dropped from the checkpoint.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import isoprobe
from isoprobe.cli import main as command

HERE = Path(__file__).parent


def main() -> None:
    """Print the curve, check it against its prediction, and write a smaller checkpoint."""
    with isoprobe.analyze(HERE / "digits.safetensors", analyses=["truncation"]) as result:
        group = {name: value.values for name, value in result["truncation"].items()}
        used = int(result["overview"]["active"].values.sum())
    print("latents kept, distortion, as importance predicts")
    for k, measured, predicted in zip(
        group["kept"], group["distortion"], group["distortion_predicted"], strict=True
    ):
        print(f"  {k:>2}  {measured:6.2f}  {predicted:6.2f}")
    enough = {share: int(group[f"latents_{share}"]) for share in (90, 95, 99)}
    print("latents for 90, 95, 99 % of what all of them remove:", *enough.values())
    assert used == 7 >= enough[99] >= enough[95] >= enough[90]
    # they part in the middle, where latents act together, by less than a tenth
    off = abs(group["distortion_predicted"] / group["distortion"] - 1)
    assert off.max() < 0.1
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.safetensors"
        rows = ["--data", str(HERE / "digits.npy")]
        given = ["convert", str(HERE / "digits.safetensors"), str(small), "--latents", "used"]
        assert command([*given, *rows]) == 0
        assert isoprobe.load(small).latent_size == used


if __name__ == "__main__":
    main()
