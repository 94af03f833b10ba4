"""An adapter for affine VAEs written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.contracts import VAE, Adapter, Facts, Posterior
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe.checkpoints.source import Source

FORMAT = "affine-vae"
MATRICES = ("encoder", "decoder")
VECTORS = ("log_std",)
LIMIT = 16 << 20


class AffineJson(Adapter):
    """Reads ``{"format": "affine-vae", "encoder": [[...]], "log_std": [...], "decoder": [[...]]}``.

    mu = encoder x, sigma = exp(log_std), x_hat = decoder z. ``beta`` may be declared, for the
    squared error summed over inputs.
    """

    name = "affine-json"
    summary = "affine encoder and decoder in a JSON file"

    def matches(self, source: Source) -> bool:
        """Return True for a JSON object that states the format."""
        if source.is_folder or not source.head(1).startswith(b"{"):
            return False
        head = source.head(4096).decode("utf-8", errors="replace")
        return f'"{FORMAT}"' in head and '"format"' in head

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Load the matrices."""
        if options:
            raise OptionError(f"adapter '{self.name}' takes no options; found '{min(options)}'")
        document = _document(source)
        module = _module(document, str(source.path))
        outputs, latents = module["decoder"].shape

        def encode(x: Tensor) -> Posterior:
            mean = x @ module["encoder"].T
            return Posterior(mean, module["log_std"].exp().expand_as(mean))

        return VAE(
            decode=lambda z: z @ module["decoder"].T,
            encode=encode,
            input_shape=(outputs,),
            latent_shape=(latents,),
            module=module,
            facts=Facts(metric="sse", beta=document.get("beta"), scale_head="logstd"),
            name=source.path.stem,
            adapter=self.name,
            sha256=source.sha256(),
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return sizes and what is declared."""
        document = _document(source)
        return {
            "architecture": "affine",
            "latent_size": len(document.get("encoder", [])),
            "metric": "sse",
            "beta": document.get("beta"),
        }


def _document(source: Source) -> dict[str, Any]:
    try:
        document = json.loads(source.head(LIMIT))
    except ValueError as error:
        raise CheckpointError(f"{source.path} is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{source.path} is no {FORMAT}: it does not state that format")
    return document


def _module(document: Mapping[str, Any], where: str) -> nn.ParameterDict:
    """Hold the numbers where the model can move and cast them."""
    import torch

    tensors: dict[str, Tensor] = {}
    for name in (*MATRICES, *VECTORS):
        try:
            tensors[name] = torch.tensor(document[name], dtype=torch.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: '{name}' is no array of numbers: {error}") from error
    n, m = tensors["encoder"].shape if tensors["encoder"].ndim == 2 else (0, 0)
    if not n or tensors["decoder"].shape != (m, n) or tensors["log_std"].shape != (n,):
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise CheckpointError(f"{where}: expected (n, m), (m, n) and (n,); found {shapes}")
    return torch.nn.ParameterDict({k: torch.nn.Parameter(v) for k, v in tensors.items()})


def write(path: Path, encoder: Any, log_std: Any, decoder: Any, beta: float | None = None) -> None:
    """Write a checkpoint of this format from nested lists of numbers."""
    document = {
        "format": FORMAT,
        "beta": beta,
        "encoder": encoder,
        "log_std": log_std,
        "decoder": decoder,
    }
    path.write_text(json.dumps(document))


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [AffineJson]
