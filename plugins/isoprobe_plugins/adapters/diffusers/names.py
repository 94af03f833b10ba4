"""Map the names that tensors of one AutoencoderKL have had, and read its sizes off shapes.

Files of the first latent diffusion code number blocks their own way and keep attention as 1 x 1
convolutions; early diffusers files call the attention's layers otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

#: a tensor that every such file has, in each layout; what stands before it is a prefix
_MARKS = (
    "encoder.mid.attn_1.q.weight",
    "encoder.mid_block.attentions.0.to_q.weight",
    "encoder.mid_block.attentions.0.query.weight",
)
_ATTENTION = {
    "norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0",
    "query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0",
}  # fmt: skip


def prefix_of(names: Iterable[str]) -> str | None:
    """Return what stands before the autoencoder's names in a file.

    Args:
        names: of the file's tensors.

    Returns:
        The prefix, empty where there is none; None for a file without such an autoencoder.
    """
    for name in names:
        for mark in _MARKS:
            if name.endswith(mark) and (name == mark or name[-len(mark) - 1] == "."):
                return name.removesuffix(mark)
    return None


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of today's diffusers.

    Args:
        tensors: of the autoencoder alone, its prefix taken off, in any of the layouts.

    Returns:
        The same tensors; 1 x 1 convolutions of the attention as matrices.
    """
    ups = [int(m[1]) for name in tensors if (m := re.match(r"decoder\.up\.(\d+)\.", name))]
    last = max(ups, default=0)
    found = {}
    for name, tensor in tensors.items():
        new = _rename(name, last)
        matrix = ".attentions." in new and tensor.ndim == 4
        found[new] = tensor[:, :, 0, 0] if matrix else tensor
    return found


def _rename(name: str, last: int) -> str:
    name = name.replace(".mid.block_1.", ".mid_block.resnets.0.")
    name = name.replace(".mid.block_2.", ".mid_block.resnets.1.")
    name = name.replace(".mid.attn_1.", ".mid_block.attentions.0.")
    name = re.sub(r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets.", name)
    name = re.sub(
        r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0.", name
    )
    up = re.match(r"^decoder\.up\.(\d+)\.(block|upsample)\.", name)
    if up is not None:  # counted from the output there, from the latents here
        part = "resnets" if up[2] == "block" else "upsamplers.0"
        name = f"decoder.up_blocks.{last - int(up[1])}.{part}.{name[up.end() :]}"
    name = re.sub(r"^((?:en|de)coder)\.norm_out\.", r"\1.conv_norm_out.", name)
    name = name.replace(".nin_shortcut.", ".conv_shortcut.")
    attention = re.match(r"(.*\.attentions\.\d+\.)(\w+)\.(weight|bias)$", name)
    if attention is not None and attention[2] in _ATTENTION:
        name = f"{attention[1]}{_ATTENTION[attention[2]]}.{attention[3]}"
    return name


def config_from_shapes(tensors: Mapping[str, Tensor], groups: int, where: str) -> dict[str, Any]:
    """Return the configuration that shapes imply.

    Args:
        tensors: under today's names.
        groups: of the group norms, which leave no trace in the shapes.
        where: how to name the file in an error.

    Returns:
        Arguments of AutoencoderKL, with its class name.

    Raises:
        CheckpointError: when tensors are missing, or the encoder gives no mean and log variance.
    """
    try:
        latents = tensors["decoder.conv_in.weight"].shape[1]
        channels = tensors["encoder.conv_in.weight"].shape[1]
        moments = tensors["encoder.conv_out.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{where}: its autoencoder lacks {error}") from error
    if moments != 2 * latents:
        raise CheckpointError(
            f"{where}: its encoder gives {moments} channels for {latents} latent ones; a mean and "
            "a log variance would be twice as many"
        )
    widths = _widths(tensors)
    blocks = len(widths)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": channels,
        "out_channels": channels,
        "latent_channels": latents,
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "layers_per_block": _count(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "norm_num_groups": groups,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


def _widths(tensors: Mapping[str, Tensor]) -> list[int]:
    blocks = _count(tensors, r"encoder\.down_blocks\.(\d+)\.")
    names = [f"encoder.down_blocks.{i}.resnets.0.conv1.weight" for i in range(blocks)]
    return [tensors[name].shape[0] for name in names if name in tensors]


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({m[1] for name in tensors if (m := re.match(pattern, name))})
