"""The gallery: reports of models that come with the repository, made while the pages are built."""

from __future__ import annotations

from pathlib import Path

import isoprobe
from isoprobe.cli.analyze import REPORTED_ANALYSES
from isoprobe.contracts import DEFAULT_ANALYSES
from isoprobe_plugins.commands.demo import IMAGES, MODEL

EXAMPLES = Path(__file__).parents[1] / "examples"
#: page, model, data, and what there is to see
REPORTS = (
    ("clothes", MODEL, f"{IMAGES}:x", "A dense VAE of Fashion-MNIST, on 500 images"),
    ("digits", EXAMPLES / "digits.safetensors", None, "A dense VAE of 8x8 digits, flat inputs"),
    ("toy", EXAMPLES / "toy_mix.safetensors", None, "The paper's toy data: three factors in 16"),
)


def gallery(folder: Path) -> None:
    """Write the reports, a comparison of two of them, and the page that lists them."""
    pages = folder / "reports" / "gallery"
    pages.mkdir(parents=True, exist_ok=True)
    analyses = (*DEFAULT_ANALYSES, *REPORTED_ANALYSES)
    lines = [
        "# Gallery",
        "Reports as `isoprobe analyze --report` writes them, one offline file each.",
    ]
    for name, model, data, said in REPORTS:
        with isoprobe.analyze(model, data, analyses=analyses, samples=1000) as result:
            page = result.report(pages / f"{name}.html", overwrite=True)
            verdict = result.verdict.headline
        lines.append(f"- {_link(page)}: {said}. {verdict}.")
    lines.append(
        f"- {_link(_compared(pages))}: linear VAEs of the digits at two betas, side by side."
    )
    (folder / "gallery.md").write_text(
        "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n"
    )


def _link(page: Path) -> str:
    # a page beside those of the site, which is no document of its own
    return f'<a href="../gallery/{page.name}">{page.stem}</a>'


def _compared(pages: Path) -> Path:
    import numpy as np
    import torch

    from isoprobe_plugins.architectures.linear import linear_vae

    x = np.load(EXAMPLES / "digits.npy") / 255
    x = x - x.mean(0)
    covariance = torch.as_tensor(np.cov(x.T))
    analyses = ["+coordinates", "+traversal"]
    out = pages / "two-betas.html"
    results = [
        isoprobe.analyze(
            linear_vae(covariance, beta, 10),
            x,
            metric="sse",
            analyses=analyses,
            out=pages / f"beta-{beta}.h5",
            overwrite=True,
        )
        for beta in (0.05, 0.4)
    ]
    isoprobe.compare(results, html=out, overwrite=True)
    for result in results:
        result.close()
        result.path.unlink()
    return out
