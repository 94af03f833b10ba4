"""Tell what a file's tensor names say, without loading a tensor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isoprobe.checkpoints.source import TORCH_KINDS, FileKind
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.weights.sets import plain
from isoprobe_plugins.adapters.weights.state import PREFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isoprobe.checkpoints.source import Source

_LEAVES = re.compile(
    r"(^|\.)(weight|bias|running_mean|running_var|num_batches_tracked"
    r"|(weight|bias)_[ih]h_l\d+)$"
)


def tensor_names(source: Source) -> frozenset[str]:
    """Return the names of a file's tensors, wrapper prefixes taken off.

    Args:
        source: safetensors or a torch file; any other gives no names.

    Returns:
        The names, as far as they can be told without loading.
    """
    if source.kind is FileKind.SAFETENSORS:
        try:
            names = {name for name in source.header if name != "__metadata__"}
        except CheckpointError:
            return frozenset()
    elif source.kind in TORCH_KINDS and source.pickle is not None:
        names = {text for text in source.pickle.strings if _LEAVES.search(text)}
    else:
        return frozenset()
    names = {plain(name) for name in names}
    while names and (prefix := next((p for p in PREFIXES if _all_begin(names, p)), None)):
        names = {name.removeprefix(prefix) for name in names}
    return frozenset(names)


def _all_begin(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


#: what names betray, and why such a model has no Gaussian posterior and smooth decoder
_TELLTALES = (
    (
        re.compile(r"^[13]\.conv\.[024]\.weight$"),
        "a deterministic autoencoder of the TAESD family ('{}'): it has no posterior, so there is "
        "no sigma to analyse",
    ),
    (
        re.compile(r"^(z_encoder\.encoder\.fc_layers\..*)$"),
        "weights of a scvi-tools model ('{}') without its settings: give the folder that its "
        "save() writes, or declare them with [likelihood] and [condition]",
    ),
)


#: names in every file that scvi-tools' ``save`` writes
_OF_SCVI = {"model_state_dict", "attr_dict", "var_names"}


def saved_by_scvi(source: Source) -> bool:
    """Return True for a torch file with the parts that scvi-tools saves beside its weights."""
    return (
        source.kind in TORCH_KINDS
        and source.pickle is not None
        and source.pickle.strings >= _OF_SCVI
    )


def why_unsupported(names: Iterable[str]) -> str | None:
    """Say what kind of model its tensors' names betray, when that kind cannot be analysed.

    Args:
        names: of the tensors.

    Returns:
        What it is and why it cannot be analysed; None for any other model.
    """
    ordered = sorted(names)
    for pattern, reason in _TELLTALES:
        found = next((name for name in ordered if pattern.search(name)), None)
        if found is not None:
            return reason.format(found)
    return None


#: names of entries that latents are snapped to
_CODEBOOK = re.compile(r"(^|[._])(vq\w*|quantize\w*|quantizer|codebook)\b.*")


def why_quantised(names: Iterable[str]) -> str | None:
    """Say that a program's latents are entries of a codebook, where its tensors' names say so.

    Args:
        names: of the tensors.

    Returns:
        What it is and why it cannot be analysed; None for any other model.
    """
    found = next((name for name in sorted(names) if _CODEBOOK.search(name)), None)
    if found is None:
        return None
    return (
        f"a vector-quantised autoencoder ('{found}'): its latents are entries of a codebook, so "
        "there is no Gaussian posterior"
    )
