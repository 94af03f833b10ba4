"""Load diffusers' AutoencoderKL, in folders and single files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter, Facts, Posterior
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.declared.adapter import beside
from isoprobe_plugins.adapters.diffusers.names import config_from_shapes, prefix_of, renamed
from isoprobe_plugins.adapters.extras import need
from isoprobe_plugins.adapters.weights.names import tensor_names, why_unsupported
from isoprobe_plugins.adapters.weights.state import read_state

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.weights.state import State

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

#: relatives, and why there is nothing to analyse
_RELATIVES = {
    "AutoencoderTiny": "is deterministic: it has no posterior",
    "AutoencoderDC": "is deterministic: it has no posterior",
    "AsymmetricAutoencoderKL": "decodes with a mask beside the latents",
    "VQModel": "is vector-quantised: its latents are entries of a codebook",
    "ConsistencyDecoderVAE": "decodes by running a diffusion, not by a function of z",
}


@dataclass(frozen=True)
class DiffusersOptions:
    """Options of ``diffusers``.

    Attributes:
        size: side of the square images to analyse; the training size when left out.
        groups: of the group norms, where a single file is read, which does not say.
    """

    size: int | None = None
    groups: int = 32


class Diffusers(Adapter):
    """Reads configuration and weights; the attention is the plain one, which can be derived."""

    name = "diffusers"
    summary = "AutoencoderKL of diffusers, folders and single files; --option size=PIXELS"

    def matches(self, source: Source) -> bool:
        """Return True for a diffusers model folder, or weights with an AutoencoderKL's names."""
        if source.is_folder:
            return source.kind is FileKind.DIFFUSERS
        names = tensor_names(source)
        single = prefix_of(names) is not None and why_unsupported(names) is None
        return single and not beside(source).is_file()

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Build the autoencoder and fill it.

        Args:
            source: the folder, or a file that holds such an autoencoder.
            options: fields of :class:`DiffusersOptions`.

        Returns:
            The model, with spatial latents flattened.
        """
        settings = construct(DiffusersOptions, options, f"adapter '{self.name}'")
        config, state, weights = _read(source, settings)
        module = _load_module(config, state.tensors, weights)
        input_shape, latent_shape = _shapes(config, settings.size)
        return VAE(
            decode=_decoder(module, latent_shape),
            encode=_encoder(module),
            input_shape=input_shape,
            latent_shape=latent_shape,
            module=module,
            facts=_facts(config, state.notes),
            name=source.path.resolve().name if source.is_folder else source.path.stem,
            adapter=self.name,
            sha256=weights.sha256(),
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the configuration; of a single file, what loading reads it off."""
        if not source.is_folder:
            return {"architecture": "AutoencoderKL", "config": "read off the weights' shapes"}
        config = _config(source)
        facts = _facts(config, ())
        return {
            "architecture": config["_class_name"],
            "config": {k: v for k, v in config.items() if not k.startswith("_")},
            "input_range": facts.input_range,
            "scale_head": facts.scale_head,
            "assumptions": list(facts.assumptions),
        }


def _config(source: Source) -> dict[str, Any]:
    """Return the configuration of an AutoencoderKL.

    Raises:
        CheckpointError: for another class, named with the reason.
    """
    config: dict[str, Any] = source.json("config.json")
    name = str(config.get("_class_name"))
    if name != "AutoencoderKL":
        reason = _RELATIVES.get(name, "is another class than AutoencoderKL, the one read here")
        raise CheckpointError(f"{source.path} holds diffusers' {name}, which {reason}")
    return config


def _weights(source: Source) -> Source:
    for name in _WEIGHTS:
        if source.has(name):
            return source.child(name)
    raise CheckpointError(f"{source.path} has no weights; expected {_WEIGHTS[0]}")


def _read(source: Source, settings: DiffusersOptions) -> tuple[dict[str, Any], State, Source]:
    """Return configuration and weights under today's names, and the file of the weights.

    Raises:
        CheckpointError: for a file that holds no such autoencoder.
    """
    if source.is_folder:
        config, weights = _config(source), _weights(source)
        state = read_state(weights, prefix="")
        return config, replace(state, tensors=renamed(state.tensors)), weights
    prefix = prefix_of(read_state(source, prefix="").tensors)
    if prefix is None:
        raise CheckpointError(f"{source.path} is {source.description}, with no AutoencoderKL in it")
    state = read_state(source, prefix=prefix)
    tensors = renamed(state.tensors)
    config = config_from_shapes(tensors, settings.groups, str(source.path))
    notes = (
        *state.notes,
        f"sizes read off the weights' shapes; group norms of {settings.groups} groups "
        "(--option groups=N)",
    )
    return config, replace(state, tensors=tensors, notes=notes), source


def _load_module(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: Source
) -> nn.Module:
    """Build without memory, compare with the file, and only then fill."""
    import torch

    from isoprobe.checkpoints.native import compare_state

    diffusers = need("diffusers", "diffusers", "an AutoencoderKL")
    try:
        with torch.device("meta"):
            module: nn.Module = diffusers.AutoencoderKL.from_config(dict(config))
    except Exception as error:  # the configuration decides what the library trips over
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CheckpointError(f"{weights.path}: diffusers cannot build it: {first[0]}") from error
    compare_state(module, tensors, str(weights.path))
    module.load_state_dict(dict(tensors), assign=True)
    _settle_strides(module)
    return module.eval()


def _settle_strides(module: nn.Module) -> None:
    """Copy what enters a GroupNorm: its forward derivative fails on the attention's strides."""
    import torch

    def settle(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *rest = arguments
        return (first.clone(memory_format=torch.contiguous_format), *rest)

    for part in module.modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.register_forward_pre_hook(settle)


def _shapes(config: Mapping[str, Any], size: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    down = 2 ** (len(config["block_out_channels"]) - 1)
    side = size if size is not None else config.get("sample_size", 256)
    if not isinstance(side, int) or side < down or side % down:
        raise OptionError(f"option 'size' must be a multiple of {down}; found {side}")
    channels, latents = config.get("in_channels", 3), config.get("latent_channels", 4)
    return (channels, side, side), (latents, side // down, side // down)


def _encoder(module: Any) -> Callable[[Tensor], Posterior]:
    def encode(x: Tensor) -> Posterior:
        latent = module.encode(x).latent_dist
        return Posterior(latent.mean.flatten(1), latent.std.flatten(1))

    return encode


def _decoder(module: Any, latent_shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def decode(z: Tensor) -> Tensor:
        # of the attention kernels only this one has a forward derivative
        with sdpa_kernel(SDPBackend.MATH):
            x_hat: Tensor = module.decode(z.reshape(*z.shape[:-1], *latent_shape)).sample
        return x_hat

    return decode


def _facts(config: Mapping[str, Any], notes: tuple[str, ...]) -> Facts:
    left = [
        f"{name} {config[name]}" for name in ("scaling_factor", "shift_factor") if config.get(name)
    ]
    pipeline = (f"{' and '.join(left)} left to pipelines, as encode and decode do",) if left else ()
    return Facts(
        input_range=(-1.0, 1.0),
        scale_head="logvar-clamped",
        beta_source="unknown: trained with perceptual and adversarial terms beside the KL",
        assumptions=(*pipeline, *notes),
    )


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Diffusers]
