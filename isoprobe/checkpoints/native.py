"""Read and write the native checkpoint: one safetensors file that describes itself.

``__metadata__`` holds a single key, ``isoprobe``, whose value is all the JSON, so that equal
content gives equal bytes. Tensors are named ``encoder.*`` and ``decoder.*``. Nothing in it is
code, and nothing in it is unpickled.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.contracts import VAE, Conditional, Facts, Networks, Posterior
from isoprobe.errors import CheckpointError
from isoprobe.results.whole import check_place, replacing
from isoprobe.theory.covariance import correlated
from isoprobe.theory.prior import MixturePrior

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT_VERSION = 1
METADATA_KEY = "isoprobe"


class Objective(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The loss a checkpoint was trained on: L_x = E D + beta sum_j KL_j (Eq. 3).

    Attributes:
        metric: metric spec of D, such as ``bce`` or ``gaussian:sigma2=0.1``.
        beta: KL weight in the units of that metric; None when no single value describes it.
        decomposed: True when trained on D(x, x_check) + D(x_check, x_hat) (Section 5.3).
        transform_weight: weight of D(x, x_check) relative to D(x_check, x_hat), if decomposed.
        transform_metric: metric spec of D(x, x_check), where it differs from ``metric``.
        capacity: C in nats, where the loss pulls the mean KL towards it.
        free_bits: nats of each latent's mean KL that cost nothing.
    """

    metric: str
    beta: float | None
    decomposed: bool = False
    transform_weight: float | None = None
    transform_metric: str | None = None
    capacity: float | None = None
    free_bits: float | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a native checkpoint says of itself.

    Attributes:
        format_version: of this layout.
        architecture: registered name of the builder.
        config: its configuration.
        latent_size: number of latents n.
        objective: the training loss, None when unknown.
        dataset: data spec of the training data.
        input_range: lowest and highest input value the model was trained on.
        preprocessing: what was done to the data set's values, such as ``{"resize": 32}``.
        training: record of the training (steps, seed, device, wall time, versions).
        tensors_sha256: hash of the tensors (see :func:`tensors_digest`), set when they are
            written; None in files of older versions, which cannot tell damage.
    """

    format_version: int
    architecture: str
    config: dict[str, Any]
    latent_size: Annotated[int, msgspec.Meta(ge=1)]
    objective: Objective | None = None
    dataset: str | None = None
    input_range: tuple[float, float] | None = None
    preprocessing: dict[str, Any] = {}
    training: dict[str, Any] = {}
    tensors_sha256: str | None = None


class _Version(msgspec.Struct):
    format_version: int


# --------------------------------------------------------------------------- writing


def write_checkpoint(
    path: str | Path,
    encoder: nn.Module,
    decoder: nn.Module,
    manifest: Manifest,
    *,
    overwrite: bool = False,
) -> None:
    """Write a native checkpoint, whole or not at all.

    Equal weights and manifest give equal bytes.

    Args:
        path: file to write, customarily ``*.safetensors``.
        encoder: module ``x -> (mean, std)`` as its architecture builds it.
        decoder: module ``z -> x_hat`` as its architecture builds it.
        manifest: what the file says of itself.
        overwrite: replace an existing file.

    Raises:
        ResultError: when the file exists, or its folder does not.
        CheckpointError: when the manifest holds a value that JSON cannot carry (NaN, an object),
            or the file cannot be written.
    """
    import safetensors.torch

    path = check_place(Path(path), overwrite=overwrite)
    tensors = {**_named_tensors("encoder", encoder), **_named_tensors("decoder", decoder)}
    manifest = msgspec.structs.replace(manifest, tensors_sha256=tensors_digest(tensors))
    metadata = {METADATA_KEY: _encode(manifest).decode()}
    try:
        with replacing(path) as partial:
            safetensors.torch.save_file(tensors, partial, metadata)
            partial.chmod(0o666 & ~_umask())  # save_file leaves it to its owner alone
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors' names, types, shapes and bytes, in the order of names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _named_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Copy the module's state, so that tied weights become tensors of their own."""
    return {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }


def _encode(manifest: Manifest) -> bytes:
    _refuse_non_finite(msgspec.to_builtins(manifest), "manifest")
    try:
        data = msgspec.json.encode(manifest, order="deterministic")
        msgspec.json.decode(data, type=Manifest)
    except (TypeError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"the manifest cannot be written: {error}") from error
    return data


def _refuse_non_finite(value: Any, where: str) -> None:
    """Raise CheckpointError for NaN or infinity, which JSON would quietly turn into null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise CheckpointError(f"the manifest cannot be written: {where} is {value}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")


# --------------------------------------------------------------------------- reading


def read_manifest(path: str | Path) -> Manifest:
    """Return what a native checkpoint says of itself; no weights are loaded.

    Raises:
        CheckpointError: when the file is missing, damaged, foreign, or of a newer format.
    """
    source = Source(path)
    if source.kind is not FileKind.SAFETENSORS:
        raise CheckpointError(f"{path} is {source.kind.value}, not a native checkpoint")
    return manifest_from_header(source.header, str(path))


def manifest_from_header(header: Mapping[str, Any], where: str = "the checkpoint") -> Manifest:
    """Decode the manifest of a safetensors header.

    Args:
        header: the parsed header, as :attr:`isoprobe.checkpoints.source.Source.header` gives it.
        where: how to name the file in an error.

    Returns:
        The manifest.

    Raises:
        CheckpointError: when there is none, it is of a newer format, or a field is wrong.
    """
    text = header.get("__metadata__", {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{where} holds weights without isoprobe's description: say how to build the model "
            "with --adapter factory --option target=module:function"
        )
    try:
        version = msgspec.json.decode(text, type=_Version).format_version
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format version {version}, newer than the {FORMAT_VERSION} "
                "this isoprobe reads; upgrade isoprobe"
            )
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CheckpointError(f"{where}: its description is damaged: {error}") from error


def weights(path: str | Path) -> dict[str, Tensor]:
    """Load every tensor of a safetensors file on the CPU.

    Args:
        path: the file.

    Returns:
        Tensors by name, as stored.

    Raises:
        CheckpointError: when the file is missing, damaged, or of another kind.
    """
    import safetensors
    import safetensors.torch

    source = Source(path)
    if source.kind is not FileKind.SAFETENSORS:
        raise CheckpointError(f"{path} is {source.kind.value}, not safetensors")
    refuse_types(source.header, str(path))  # raises with a better message than the library's
    try:
        tensors = safetensors.torch.load_file(source.path)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if METADATA_KEY in source.header.get("__metadata__", {}):
        expected = manifest_from_header(source.header, str(path)).tensors_sha256
        if expected is not None and expected != tensors_digest(tensors):
            raise CheckpointError(
                f"{path} is damaged: its tensors are not those that were written; fetch it again"
            )
    return tensors


def refuse_types(header: Mapping[str, Any], where: str) -> None:
    """Refuse weights of types that no network of ours computes with, by the header alone.

    Args:
        header: of a safetensors file.
        where: how to name the file in an error.

    Raises:
        CheckpointError: for complex numbers and those of 8 bits and fewer, naming the tensor.
    """
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"].startswith(("C", "F8_", "F6_", "F4")):
            raise CheckpointError(
                f"{where}: tensor {name!r} has type {entry['dtype']}; expected real numbers of 16 "
                "bits or more: convert it before"
            )


def refuse_not_finite(weight: Tensor, name: str, where: str) -> None:
    """Refuse a weight with a number that is not finite.

    Args:
        weight: the weight.
        name: of it, as the file has it where that is known.
        where: how to name the model in an error.

    Raises:
        CheckpointError: naming the weight and the first such number.
    """
    bad = ~weight.isfinite()
    if bool(bad.any()):
        raise CheckpointError(
            f"{where}: weight '{name}' has {int(bad.sum())} of {bad.numel()} numbers that are not "
            f"finite, the first {weight[bad][0]:g}; expected finite numbers. Training may have "
            "diverged, or the file is damaged."
        )


def load_weights(networks: Networks, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put tensors named ``encoder.*`` and ``decoder.*`` into networks, all of them or none.

    Names and shapes are compared before anything is assigned, so networks may stand on the
    ``meta`` device, where a forged configuration costs no memory.

    Args:
        networks: as an architecture builds them.
        tensors: by name.
        where: how to name the file in an error.

    Raises:
        CheckpointError: when a tensor is missing, left over, or of another shape.
    """
    left_over = [k for k in tensors if not k.startswith(("encoder.", "decoder."))]
    if left_over:
        raise CheckpointError(f"{where} has a tensor of no network: {left_over[0]}")
    parts = (("encoder", networks.encoder), ("decoder", networks.decoder))
    own = {name: _part_of(tensors, name) for name, _ in parts}
    for name, module in parts:
        compare_state(module, own[name], f"{where}: {name}")
    for name, module in parts:
        module.load_state_dict(own[name], assign=True)


def _part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def compare_state(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Check that tensors are exactly a module's state, by name and shape.

    Raises:
        CheckpointError: naming the first tensor missing, left over, or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in wanted if name not in tensors]
    left_over = [name for name in tensors if name not in wanted]
    if missing or left_over:
        found = f"; found {left_over[0]!r}, which it does not have" if left_over else ""
        lacks = f"lacks {missing[0]!r}" if missing else "has all it needs"
        raise CheckpointError(f"{where} {lacks}{found}: weights and architecture differ")
    for name, tensor in module.state_dict().items():
        given = tensors[name]
        if given.is_complex() or given.is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"{where} {name!r} has type {str(given.dtype).removeprefix('torch.')}, its "
                f"architecture needs {str(tensor.dtype).removeprefix('torch.')}"
            )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(
                f"{where} {name!r} has shape {tuple(tensors[name].shape)}, "
                f"its architecture needs {shape}"
            )


# --------------------------------------------------------------------------- the model


def facts_of(manifest: Manifest) -> Facts:
    """Translate a manifest's declarations into what analyses read."""
    objective = manifest.objective
    if objective is None:
        return Facts(
            input_range=manifest.input_range, dataset=manifest.dataset, training=manifest.training
        )
    return Facts(
        input_range=manifest.input_range,
        dataset=manifest.dataset,
        training=manifest.training,
        metric=objective.metric,
        beta=objective.beta,
        beta_source=None if objective.beta is None else "the checkpoint's manifest",
        decomposed=objective.decomposed,
        transform_weight=objective.transform_weight,
        transform_metric=objective.transform_metric,
        capacity=objective.capacity,
        free_bits=objective.free_bits,
    )


def vae_from_networks(networks: Networks, facts: Facts, **fields: Any) -> VAE:
    """Wrap networks into the model that every analysis sees.

    Args:
        networks: encoder ``x -> (mean, std)`` and decoder ``z -> x_hat``.
        facts: what is declared.
        **fields: further fields of :class:`~isoprobe.contracts.VAE`, such as ``name``.

    Returns:
        The model, in eval mode; its encode gives means and deviations flattened to ``(B, n)``. A
        prior of one Gaussian, or of one for each class, is made N(0, I) by the unit of its
        latents, which changes nothing.
    """
    from torch import nn

    given = networks.prior
    gaussian = _gaussian(networks)

    def encode(x: Tensor, *c: Tensor) -> Posterior:
        if networks.correlated:
            return correlated(*networks.encoder(x, *c))
        mean, std = (part.flatten(1) for part in networks.encoder(x, *c))
        if gaussian is not None:
            centres, widths = (part.to(mean) for part in gaussian(*c))
            mean, std = (mean - centres) / widths, std / widths
        return Posterior(mean, std)

    def decoded(network: Any) -> Any:
        if network is None:
            return None
        whole = _unflattened(network, networks.latent_shape)
        return whole if gaussian is None else _in_units(whole, gaussian)

    decode = decoded(networks.decoder)
    decode_logits = decoded(getattr(networks.decoder, "logits", None))
    decode_parameters = decoded(getattr(networks.decoder, "parameters_of", None))
    if gaussian is not None:
        one = "one Gaussian" if networks.prior_by is None else networks.prior_words
        said = f"the prior is {one}: latents are in its units, in which it is N(0, I)"
        facts = replace(facts, assumptions=(*facts.assumptions, said))
    elif given is not None:
        fields["prior"] = MixturePrior(given, networks.prior_words)
    fields |= {
        "likelihood": getattr(networks.decoder, "likelihood", ""),
        "input_shape": networks.input_shape,
        "latent_shape": networks.latent_shape,
        "correlated": networks.correlated,
        "module": nn.ModuleDict({"encoder": networks.encoder, "decoder": networks.decoder}),
        "facts": facts,
    }
    if networks.classes:
        conditional = Conditional(
            decode=decode,
            encode=encode,
            classes=networks.classes,
            words=networks.words,
            infer=networks.infer,
            also=networks.also,
            decode_logits=decode_logits,
            decode_parameters=decode_parameters,
        )
        return VAE.told(conditional, **fields)
    return VAE(
        decode=decode,
        encode=encode,
        decode_logits=decode_logits,
        decode_parameters=decode_parameters,
        **fields,
    )


def _gaussian(networks: Networks) -> Any:
    """Mean and deviation of a prior that is one Gaussian, of each row's class where it has one.

    Returns:
        ``c -> (means, deviations)``, ``(1, n)`` or ``(B, n)`` each; None for any other prior.
    """
    given, by = networks.prior, networks.prior_by
    if given is None or (by is None and len(given()[0]) != 1):
        return None

    def found(*c: Tensor) -> tuple[Tensor, Tensor]:
        _, centres, widths = given()
        if by is None:
            return centres, widths
        rows = c[0][:, by].long()
        return centres[rows], widths[rows]

    return found


def _in_units(decode: Any, gaussian: Any) -> Any:
    """Give the decoder latents z = mean + width * w of a Gaussian prior for w of N(0, I)."""

    def wrapped(w: Tensor, *c: Tensor) -> Tensor:
        centres, widths = (part.to(w) for part in gaussian(*c))
        result: Tensor = decode(centres + widths * w, *c)
        return result

    return wrapped


def _unflattened(decode: Any, latent_shape: tuple[int, ...]) -> Any:
    """Give the decoder latents in their own shape."""
    if len(latent_shape) == 1:
        return decode

    def wrapped(z: Tensor, *c: Tensor) -> Tensor:
        result: Tensor = decode(z.reshape(*z.shape[:-1], *latent_shape), *c)
        return result

    return wrapped
