"""How isometric is my model: distances in y beside the lengths of shortest paths.

The paper's claim is local: near a point, y has the metric of the loss. This asks the same from
one sample to another, for a toy model that comes close to the theory's optimum and for a model of
digits that does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import isoprobe

HERE = Path(__file__).parent


def main() -> None:
    """Print both models' figures, and check what the page on them claims."""
    with isoprobe.analyze(HERE / "toy_mix.safetensors", analyses=["geometry"]) as result:
        toy = result["geometry"]
        ratio = toy["distance_y"].values / toy["geodesic"].values
        line = toy["line_y"].values / toy["geodesic"].values
        print(f"toy: |dy| / d {float(toy['global_isometry'].values):.3f}")
    assert np.quantile(abs(ratio - 1), 0.9) < 0.02
    assert line.max() < 1.001
    with isoprobe.analyze(HERE / "digits.safetensors", analyses=["geometry"]) as result:
        digits = result["geometry"]
        middle, low, high = (
            float(digits[f"global_isometry{end}"].values) for end in ("", "_low", "_high")
        )
        y, z = (float(digits[f"correlation_{name}"].values) for name in "yz")
        excess = float(digits["excess_z"].values)
    print(f"digits: |dy| / d {middle:.3f} (95 %: {low:.3f} to {high:.3f})")
    print(f"  correlation with d: |dy| {y:.2f}, |dz| {z:.2f}; straight lines {excess:.0%} longer")
    assert high < 0.95  # isometric near a point, and not at a distance
    assert y > z > 0.5
    assert excess > 0.05


if __name__ == "__main__":
    main()
