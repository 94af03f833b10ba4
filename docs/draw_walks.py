"""Draw the picture of the README: walks of the demo's model, the most important latent first.

Run ``python docs/draw_walks.py``; it writes ``docs/figures/walks.png``. The model is a small VAE of
Fashion-MNIST (MIT licence) that comes with isoprobe.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import isoprobe
from isoprobe.show.plots import styled
from isoprobe.show.plots.frames import frames
from isoprobe.show.plots.walks import tiles
from isoprobe_plugins.commands.demo import IMAGES, MODEL

OUT = Path(__file__).parent / "figures" / "walks.png"
SHOWN = 8


def main() -> None:
    """Analyse and draw."""
    with isoprobe.analyze(MODEL, f"{IMAGES}:x", analyses=["isometry", "traversal"]) as result:
        latents = result["traversal"]["latents"].values[:SHOWN]
        pictures = frames(result["traversal"]["images_equal_y"].values[:SHOWN])
        share = result["importance"]["share"].values[latents]
    with styled():
        drawn = Figure(figsize=(7.0, 4.85))
        axes = drawn.add_subplot()
        tiles(pictures, axes)
        names = [f"latent {j}   {part:.0%}" for j, part in zip(latents, share, strict=True)]
        axes.set_yticks(np.arange(len(latents)), names)
        axes.set_xticks([])
        axes.set_xlabel("equal steps of the isometric coordinate: each changes the image as much")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        drawn.savefig(OUT, dpi=110, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
