"""Folders of pythae models with the default networks; pythae itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.source import FileKind
from isoprobe.specs import construct

if TYPE_CHECKING:
    from isoprobe.source import Source
    from isoprobe_plugins.adapters.declaration import Declaration

_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]

#: configurations whose KL has one weight, and the weight where it has no name
_WEIGHTED = {"VAEConfig": 1.0, "BetaVAEConfig": None}
_DETERMINISTIC = {"AEConfig", "WAE_MMD_Config", "RAE_L2_Config", "RAE_GP_Config", "VQVAEConfig"}


class PythaeConfig(msgspec.Struct, frozen=True):
    """What matters of ``model_config.json``."""

    name: str
    input_dim: Annotated[tuple[_Size, ...], msgspec.Meta(min_length=1, max_length=8)]
    latent_dim: _Size
    reconstruction_loss: Literal["mse", "bce"] | None = None
    beta: float | None = None
    uses_default_encoder: bool = True
    uses_default_decoder: bool = True


class NoOptions:
    """The folder says everything, so there is nothing to set."""


class Pythae(Adapter):
    """Reads the default MLP networks; networks pickled as code are refused."""

    name = "pythae"
    summary = "pythae model folders with the default networks"

    def matches(self, source: Source) -> bool:
        """Return True for a pythae model folder."""
        return source.kind is FileKind.PYTHAE

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read configuration and weights."""
        from isoprobe_plugins.adapters.declared import load_declared
        from isoprobe_plugins.adapters.state import read_state

        construct(NoOptions, options, f"adapter '{self.name}'")
        config = _read_config(source)
        weights = source.child("model.pt")
        where = f"{source.path}: model_config.json"
        return load_declared(
            _declare(config),
            read_state(weights, prefix=""),
            weights,
            adapter=self.name,
            where=where,
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the configuration."""
        described: dict[str, Any] = msgspec.to_builtins(_read_config(source))
        return {"architecture": "pythae's default MLP", **described}


def _read_config(source: Source) -> PythaeConfig:
    """Return the checked configuration.

    Raises:
        CheckpointError: for a deterministic model, networks of one's own, and wrong fields.
    """
    where = f"{source.path}: model_config.json"
    try:
        config = msgspec.convert(source.json("model_config.json"), PythaeConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if config.name in _DETERMINISTIC:
        raise CheckpointError(f"{where}: a {config.name} is no VAE: it has no Gaussian posterior")
    if not (config.uses_default_encoder and config.uses_default_decoder):
        raise CheckpointError(
            f"{where}: its networks are pickled code (encoder.pkl, decoder.pkl), which is not run: "
            "build them yourself with --adapter factory --option target=module:function"
        )
    return config


def _declare(config: PythaeConfig) -> Declaration:
    from isoprobe_plugins.adapters.declaration import parse_declaration

    fields: dict[str, Any] = {
        "input_shape": config.input_dim,
        "encoder": ["flatten", {"linear": "encoder.layers.0.0"}, "relu"],
        "head": {"mean": "encoder.embedding", "scale": "encoder.log_var", "form": "logvar"},
        "decoder": [
            {"linear": "decoder.layers.0.0"},
            "relu",
            {"linear": "decoder.layers.1.0"},
            {"reshape": list(config.input_dim)},
        ],
        "output": "sigmoid",
        "input_range": (0.0, 1.0),
        "note": f"pythae {config.name}",
    }
    if config.reconstruction_loss is not None:
        fields["loss"] = _loss(config)
    return parse_declaration(fields, "pythae")


def _loss(config: PythaeConfig) -> dict[str, Any]:
    """Write the loss down; pythae's "mse" is half the sum of squares."""
    weight = _WEIGHTED.get(config.name) or (config.beta if config.name in _WEIGHTED else None)
    kinds: dict[str, dict[str, Any]] = {
        "mse": {"metric": "sse", "factor": 0.5},
        "bce": {"metric": "bce"},
    }
    return {**kinds[config.reconstruction_loss or "bce"], "kl_weight": weight}


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Pythae]
