"""Load folders of pythae models; pythae itself is only needed where their code has to be run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import NoOptions, construct
from isoprobe_plugins.adapters.declared.adapter import load_declared
from isoprobe_plugins.adapters.declared.declaration import Loss, parse_declaration
from isoprobe_plugins.adapters.pythae.networks import decoder_chain, encoder_chain, network_named
from isoprobe_plugins.adapters.weights.state import read_state

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.declared.declaration import Declaration
    from isoprobe_plugins.adapters.weights.state import State

_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]

#: configurations whose KL has one weight, and the weight where it has no name
_WEIGHTED = {"VAEConfig": 1.0, "BetaVAEConfig": None, "VAMPConfig": 1.0}
_DETERMINISTIC = {"AEConfig", "WAE_MMD_Config", "RAE_L2_Config", "RAE_GP_Config", "VQVAEConfig"}
#: configurations that are another model than N(mu, sigma^2) measured to N(0, I), and what it is
_OTHERS = {
    "VAE_IAF_Config": "its posterior is a Gaussian moved on by inverse autoregressive flows",
    "VAE_LinNF_Config": "its posterior is a Gaussian moved on by planar and radial flows",
    "PoincareVAEConfig": "its prior and posterior are normal distributions of hyperbolic space",
    "SVAEConfig": "its posterior is a von Mises-Fisher distribution on a sphere",
    "HVAEConfig": "its posterior is a Gaussian moved on by Hamiltonian steps of the decoder",
    "RHVAEConfig": "its posterior is a Gaussian moved on by Hamiltonian steps in a learnt metric",
}
#: configurations whose reconstruction loss is none of the two that it may name
_OTHER_LOSS = {"VAEGANConfig", "MSSSIM_VAEConfig"}
#: networks of the training alone
_BESIDE = "discriminator."
_PSEUDO = ("pseudo_inputs.0.weight", "pseudo_inputs.0.bias")


class PythaeConfig(msgspec.Struct, frozen=True):
    """What matters of ``model_config.json``."""

    name: str
    input_dim: Annotated[tuple[_Size, ...], msgspec.Meta(min_length=1, max_length=8)]
    latent_dim: _Size
    reconstruction_loss: Literal["mse", "bce"] | None = None
    beta: float | None = None
    deterministic_posterior: bool = False
    uses_default_encoder: bool = True
    uses_default_decoder: bool = True


class Pythae(Adapter):
    """Reads pythae's own chains of layers; any other network is code, run only where trusted."""

    name = "pythae"
    summary = "pythae model folders: default and convolutional networks, others with --trust"

    def matches(self, source: Source) -> bool:
        """Return True for a pythae model folder."""
        return source.kind is FileKind.PYTHAE

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read configuration and weights."""
        from isoprobe_plugins.adapters.pythae.code import load_by_code

        construct(NoOptions, options, f"adapter '{self.name}'")
        config = _read_config(source)
        networks = _networks(source, config)
        if networks is None:
            loss = Loss(**_loss(config)) if _names_loss(config) else None
            return load_by_code(source, config.input_dim, config.latent_dim, loss, self.name)
        weights = source.child("model.pt")
        state = read_state(weights, prefix="")
        if config.name == "VAMPConfig":
            state = _with_pseudo_inputs(state, config, source)
        left = [name for name in state.tensors if name.startswith(_BESIDE)]
        beside = ("the discriminator of the training is left out",) if left else ()
        return load_declared(
            _declare(config, networks),
            replace(state, notes=(*state.notes, *networks.notes, *beside)),
            weights,
            adapter=self.name,
            where=f"{source.path}: model_config.json",
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the configuration."""
        config = _read_config(source)
        networks = _networks(source, config)
        described: dict[str, Any] = msgspec.to_builtins(config)
        return {"architecture": "code" if networks is None else networks.name, **described}


def _read_config(source: Source) -> PythaeConfig:
    """Return the checked configuration.

    Raises:
        CheckpointError: for a deterministic model, and wrong fields.
    """
    where = f"{source.path}: model_config.json"
    try:
        config = msgspec.convert(source.json("model_config.json"), PythaeConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if config.name in _DETERMINISTIC:
        raise CheckpointError(f"{where}: a {config.name} is no VAE: it has no Gaussian posterior")
    if config.deterministic_posterior:
        raise CheckpointError(
            f"{where}: a {config.name} with deterministic_posterior decodes its means, and its "
            "scales were never trained"
        )
    if config.name in _OTHERS:
        raise CheckpointError(
            f"{where}: a {config.name} is not analysed: {_OTHERS[config.name]}, and what is read "
            "are independent Gaussians"
        )
    return config


def _names_loss(config: PythaeConfig) -> bool:
    """Whether the reconstruction loss that the configuration names is the one in use."""
    return config.reconstruction_loss is not None and config.name not in _OTHER_LOSS


def _with_pseudo_inputs(state: State, config: PythaeConfig, source: Source) -> State:
    """Write a VampPrior's pseudo-inputs as one tensor: a linear layer's answers to unit vectors."""
    weight, bias = (state.tensors.get(name) for name in _PSEUDO)
    size = math.prod(config.input_dim)
    if weight is None or bias is None or weight.ndim != 2 or weight.shape[0] != size:
        raise CheckpointError(f"{source.path}: a VAMPConfig without {_PSEUDO[0]} of {size} rows")
    if bias.shape != weight.shape[:1]:
        raise CheckpointError(f"{source.path}: {_PSEUDO[1]} is not of {size} values")
    inputs = (weight + bias[:, None]).T.reshape(-1, *config.input_dim)
    others = {name: tensor for name, tensor in state.tensors.items() if name not in _PSEUDO}
    return replace(state, tensors={**others, "pseudo_inputs": inputs.contiguous()})


@dataclass(frozen=True)
class _Networks:
    """Both networks as chains of layers.

    Attributes:
        name: what they are.
        encoder: brief steps up to the heads.
        decoder: brief steps up to the sigmoid.
        notes: what was assumed, a sentence each.
    """

    name: str
    encoder: list[Any]
    decoder: list[Any]
    notes: tuple[str, ...] = ()


def _networks(source: Source, config: PythaeConfig) -> _Networks | None:
    """Return the networks where they can be told without running code, else None."""
    names: list[str] = []

    def named(file: str, is_default: bool) -> str | None:
        if is_default:
            return None
        names.append((network_named(source.child(file)) if source.has(file) else None) or "")
        return names[-1]

    encoder = encoder_chain(named("encoder.pkl", config.uses_default_encoder))
    decoder = decoder_chain(named("decoder.pkl", config.uses_default_decoder), config.input_dim)
    if encoder is None or decoder is None:
        return None
    notes = tuple(f"read as pythae's {name}, the name its pickled code bears" for name in names)
    return _Networks(" and ".join(names) or "pythae's default MLP", encoder, decoder, notes)


def _declare(config: PythaeConfig, networks: _Networks) -> Declaration:
    fields: dict[str, Any] = {
        "input_shape": config.input_dim,
        "encoder": networks.encoder,
        "head": {"mean": "encoder.embedding", "scale": "encoder.log_var", "form": "logvar"},
        "decoder": networks.decoder,
        "output": "sigmoid",
        "input_range": (0.0, 1.0),
        "note": f"pythae {config.name}",
        "ignore": [_BESIDE],
    }
    if config.name == "VAMPConfig":
        fields["prior"] = {"kind": "vamp", "pseudo_inputs": "pseudo_inputs", "squeeze": "clamp"}
    if _names_loss(config):
        fields["loss"] = _loss(config)
    return parse_declaration(fields, "pythae")


def _loss(config: PythaeConfig) -> dict[str, Any]:
    """Write the loss down; pythae's "mse" is half the sum of squares."""
    weight = _WEIGHTED.get(config.name) or (config.beta if config.name in _WEIGHTED else None)
    kinds: dict[str, dict[str, Any]] = {
        "mse": {"metric": "sse", "factor": 0.5},
        "bce": {"metric": "bce"},
    }
    return {**kinds[config.reconstruction_loss or "bce"], "beta": weight}


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Pythae]
