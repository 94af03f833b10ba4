"""Load folders of the disentangling-vae code base: ``model.pt`` beside ``specs.json``.

Architecture: Burgess et al. (2018), four-by-four convolutions with stride 2 and a head in which
mean and log variance alternate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.contracts import VAE, Adapter, Facts
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import NoOptions, construct
from isoprobe_plugins.adapters.weights.named import fill_layers
from isoprobe_plugins.adapters.weights.torch_files import tensors_of
from isoprobe_plugins.architectures.layers import LayersConfig

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

_Size = Annotated[int, msgspec.Meta(ge=1, le=4096)]

#: losses that weigh the KL by no single number, and why
_NO_BETA = {
    "betaB": "loss 'betaB' pulls the KL towards a capacity, so no one weight describes it",
    "factor": "loss 'factor' adds a total correlation term to the KL",
    "btcvae": "loss 'btcvae' weighs the parts of the KL differently",
}


class Specs(msgspec.Struct, frozen=True):
    """What matters of ``specs.json``, which lists the settings of every loss there is."""

    img_size: tuple[_Size, _Size, _Size]
    latent_dim: _Size
    loss: str
    rec_dist: str
    model_type: str
    dataset: str | None = None
    betaH_B: float | None = None  # noqa: N815  # the file's own name
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    reg_anneal: float | None = None


class DisentanglingVae(Adapter):
    """Reads the weights and the settings of the loss that was used."""

    name = "disentangling-vae"
    summary = "folders of model.pt and specs.json written by disentangling-vae"

    def matches(self, source: Source) -> bool:
        """Return True for a folder with both files, whose settings are of this code base."""
        if not source.is_folder or not source.has("model.pt", "specs.json"):
            return False
        try:
            specs = source.json("specs.json")
        except CheckpointError:
            return False
        return isinstance(specs, dict) and {"img_size", "latent_dim", "rec_dist"} <= set(specs)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read weights and settings."""
        construct(NoOptions, options, f"adapter '{self.name}'")
        specs = _read_specs(source)
        weights = source.child("model.pt")
        networks = fill_layers(burgess(specs), tensors_of(weights), str(weights.path))
        return vae_from_networks(
            networks,
            _facts(specs),
            name=source.path.resolve().name,
            adapter=self.name,
            sha256=weights.sha256(),
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return architecture, objective and training record."""
        specs = _read_specs(source)
        facts = _facts(specs)
        return {
            "architecture": "Burgess et al. (2018)",
            "input_shape": list(specs.img_size),
            "latent_size": specs.latent_dim,
            "objective": {
                "metric": facts.metric,
                "beta": facts.beta,
                "beta_source": facts.beta_source,
            },
            "input_range": facts.input_range,
            "dataset": facts.dataset,
            "scale_head": facts.scale_head,
            "assumptions": list(facts.assumptions),
            "training": dict(facts.training),
        }


def _read_specs(source: Source) -> Specs:
    """Return the checked settings.

    Raises:
        CheckpointError: for a wrong field, or an architecture this adapter does not know.
    """
    where = f"{source.path}: specs.json"
    try:
        specs = msgspec.convert(source.json("specs.json"), Specs)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{where}: {error}") from error
    side = specs.img_size[1]
    if specs.model_type != "Burgess" or specs.img_size[1:] not in {(32, 32), (64, 64)}:
        raise CheckpointError(
            f"{where}: model {specs.model_type!r} at {side} pixels; "
            "only Burgess at 32 or 64 pixels is known"
        )
    return specs


def burgess(specs: Specs) -> LayersConfig:
    """Write the architecture down as chains of layers."""
    channels, side, _ = specs.img_size
    down = ["conv1", "conv2", "conv3"] + (["conv_64"] if side == 64 else [])
    up = (["convT_64"] if side == 64 else []) + ["convT1", "convT2"]
    encoder = [
        *(s for name in down for s in (_conv(f"encoder.{name}"), _RELU)),
        {"op": "flatten"},
        *(s for name in ("lin1", "lin2") for s in (_linear(f"encoder.{name}", 256), _RELU)),
        _linear("encoder.mu_logvar_gen", 2 * specs.latent_dim),
    ]
    decoder = [
        *(s for name in ("lin1", "lin2") for s in (_linear(f"decoder.{name}", 256), _RELU)),
        _linear("decoder.lin3", 512),
        _RELU,
        {"op": "reshape", "shape": [32, 4, 4]},
        *(s for name in up for s in (_conv(f"decoder.{name}", op="conv_transpose"), _RELU)),
        _conv("decoder.convT3", channels, op="conv_transpose"),
    ]
    config = {
        "input_shape": specs.img_size,
        "latent_size": specs.latent_dim,
        "encoder": encoder,
        "head": {"layout": "interleaved", "form": "logvar"},
        "decoder": decoder,
        "output": "sigmoid",
    }
    return msgspec.convert(config, LayersConfig)


_RELU = {"op": "activation", "name": "relu"}


def _linear(weights: str, width: int) -> dict[str, Any]:
    return {"op": "linear", "width": width, "weights": weights}


def _conv(weights: str, channels: int = 32, op: str = "conv") -> dict[str, Any]:
    sizes = {"channels": channels, "kernel": 4, "stride": 2, "padding": 1}
    return {"op": op, "weights": weights, **sizes}


def _facts(specs: Specs) -> Facts:
    metric, units = _metric(specs)
    beta, source = _beta(specs)
    if metric is None:
        beta, source = None, f"distortion {specs.rec_dist!r} has no metric here"
    training = msgspec.to_builtins(specs)
    return Facts(
        input_range=(0.0, 1.0),
        output_range=(0.0, 1.0),
        metric=metric,
        beta=None if beta is None else beta / units,
        beta_source=source,
        decomposed=False,
        dataset=specs.dataset,
        scale_head="logvar",
        assumptions=("mean and log variance alternate in one head, as this code base writes them",),
        training={k: v for k, v in training.items() if v is not None},
    )


def _metric(specs: Specs) -> tuple[str | None, float]:
    """Metric, and by how much the training loss exceeds it."""
    known = {"bernoulli": ("bce", 1.0), "gaussian": ("sse", 255.0)}
    return known.get(specs.rec_dist, (None, 1.0))


def _beta(specs: Specs) -> tuple[float | None, str]:
    """KL weight in units of the training loss, and where it comes from."""
    if specs.loss == "VAE":
        return 1.0, "specs.json: loss 'VAE'"
    if specs.loss == "betaH" and specs.betaH_B is not None:
        return specs.betaH_B, "specs.json: betaH_B of loss 'betaH'"
    return None, "unknown: " + _NO_BETA.get(specs.loss, f"loss {specs.loss!r} is not known here")


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [DisentanglingVae]
