"""Write the prior of scANVI's first latents, which a second level of latents and labels makes.

p(z1) = sum_y p(y) E p(z1 | z2, y) over z2 of N(0, I) is a mixture of Gaussians without end; a fixed
set of z2 is taken for it. SCANVI is trained with a bound of it that a classifier and a second
posterior make, so that no condition of an optimum is expected to hold exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import CheckpointError
from isoprobe.files.meter import Meter
from isoprobe.statistics.draws import normal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

#: draws of z2 for each label
DRAWS = 512
#: of scvi-tools' batch norms
EPS = 0.001
#: parts of the second level and of the classifier, which are on no way from x to x
ASIDE = ("classifier.", "encoder_z2_z1.", "decoder_z1_z2.", "y_prior")
MEANS, SCALES, SHARES = "scanvi_prior.means", "scanvi_prior.logvars", "scanvi_prior.shares"

_DECODER = "decoder_z1_z2"


def prior_tensors(tensors: Mapping[str, Tensor], where: str, size: int) -> dict[str, Tensor]:
    """Decode draws of the second level.

    Args:
        tensors: of the checkpoint, by name.
        where: how to name it in an error.
        size: bytes of its file.

    Returns:
        Means and log variances of the components, ``(K, n)``, and their shares, ``(K,)``.

    Raises:
        CheckpointError: for a second level of another form.
        FileError: when it has labels or layers out of proportion to its file.
    """
    import torch

    shares = _tensor(tensors, "y_prior", where, 2).reshape(-1)
    labels = len(shares)
    first = _tensor(tensors, f"{_DECODER}.decoder.fc_layers.Layer 0.0.weight", where, 2)
    latents = first.shape[1] - labels
    if latents < 1:
        raise CheckpointError(f"{where}: {_DECODER} takes {first.shape[1]} values, {labels} labels")
    layers = 0
    while f"{_DECODER}.decoder.fc_layers.Layer {layers}.0.weight" in tensors:
        layers += 1
    heads = [f"{_DECODER}.{name}_decoder" for name in ("mean", "var")]
    widths = [len(_tensor(tensors, f"{head}.bias", where, 1)) for head in heads]
    meter = Meter(where, size)
    made = [len(t) for name, t in tensors.items() if name.startswith(_DECODER) and t.ndim == 2]
    meter.check(16 * DRAWS * max(latents, *made), f"a layer of its {_DECODER}")
    meter.charge(
        first.element_size() * DRAWS * labels * sum(widths), f"its prior of {labels} labels"
    )
    z = torch.as_tensor(normal(0, "scanvi", np.arange(DRAWS), latents), dtype=first.dtype)
    found = [first.new_empty(labels, DRAWS, width) for width in widths]
    for label in range(labels):  # one after another: they alone are held, and not what makes them
        hidden = z
        for index in range(layers):
            place = f"{_DECODER}.decoder.fc_layers.Layer {index}"
            hidden = _layer(tensors, place, hidden, (label, labels), where)
        for head, kept in zip(heads, found, strict=True):
            kept[label] = _dense(tensors, head, hidden, where)
    means, scales = (each.flatten(0, 1) for each in found)
    return {MEANS: means, SCALES: scales, SHARES: shares.repeat_interleave(DRAWS) / DRAWS}


def _layer(
    tensors: Mapping[str, Tensor], place: str, x: Tensor, label: tuple[int, int], where: str
) -> Tensor:
    """A dense layer, its batch norm and ReLU; a label of many joins where it is as much wider."""
    hidden = _dense(tensors, f"{place}.0", x, where, label)
    if f"{place}.1.running_mean" in tensors:
        mean, variance, weight, bias = (
            _tensor(tensors, f"{place}.1.{name}", where, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        if not len(mean) == len(variance) == len(weight) == len(bias) == hidden.shape[1]:
            raise CheckpointError(
                f"{where}: {place}.1 is no batch norm of {hidden.shape[1]} values"
            )
        hidden = (hidden - mean) / (variance + EPS).sqrt() * weight + bias
    return hidden.relu()


def _dense(
    tensors: Mapping[str, Tensor],
    place: str,
    x: Tensor,
    where: str,
    label: tuple[int, int] = (0, 0),
) -> Tensor:
    weight = _tensor(tensors, f"{place}.weight", where, 2)
    bias = _tensor(tensors, f"{place}.bias", where, 1)
    which, labels = label
    if labels and weight.shape == (len(bias), x.shape[1] + labels):
        # a one-hot code takes one column of the weight, and adds it
        weight, bias = weight[:, : x.shape[1]], bias + weight[:, x.shape[1] + which]
    if weight.shape != (len(bias), x.shape[1]):
        raise CheckpointError(
            f"{where}: {place}.weight of shape {tuple(weight.shape)} takes no {x.shape[1]} values"
        )
    return x @ weight.T + bias


def _tensor(tensors: Mapping[str, Tensor], name: str, where: str, axes: int) -> Tensor:
    found = tensors.get(name)
    if found is None or found.ndim != axes or not found.is_floating_point():
        raise CheckpointError(f"{where}: SCANVI without {name} as an array of {axes} axes")
    return found


def prior_fields() -> dict[str, Any]:
    """The prior as a declaration has it, of the tensors of :func:`prior_tensors`."""
    return {
        "kind": "mixture",
        "means": MEANS,
        "scales": SCALES,
        "shares": SHARES,
        "shares_form": "probabilities",
    }
