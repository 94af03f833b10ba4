"""Join encoder and decoder that come as two files, or as one with two entry points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isoprobe.contracts import VAE, Live
from isoprobe.errors import IsoprobeError, OptionError
from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.objects.two_files import PairOptions


@dataclass(frozen=True)
class Shapeless:
    """Entry points whose shapes the first rows of the data tell.

    Attributes:
        built: object with encode and decode.
        settings: options in force.
        source: where it comes from.
    """

    built: Any
    settings: PairOptions
    source: Source

    @classmethod
    def of(
        cls, build: Callable[[], Any], settings: PairOptions, source: Source, adapter: str
    ) -> Live | None:
        """Return such entry points; None where options tell the shape, or there is no encoder."""
        if settings.input_shape is not None or settings.decoder == "self":
            return None
        found = cls(build(), settings, source)
        return Live(found, {}, source.path.stem, source.sha256(), adapter=adapter)

    def read(self, x: torch.Tensor, adapter: str) -> VAE:
        """Try the shapes that rows may have: as they are held, flat, with a channel.

        Args:
            x: rows, ``(B, ...)``.
            adapter: name of the adapter at work.

        Returns:
            The model.

        Raises:
            OptionError: where it takes rows in none of them.
        """
        row = tuple(x.shape[1:])
        shapes = [row, (math.prod(row),)]
        shapes += [(1, *row)] if len(row) == 2 else []
        shapes += [(row[-1], *row[:-1])] if len(row) == 3 else []
        failed: list[str] = []
        for shape in dict.fromkeys(shapes):
            settings = replace(self.settings, input_shape="x".join(map(str, shape)))
            try:
                vae = vae_from_object(
                    self.built, settings, str(self.source.path), self.source, adapter=adapter
                )
                self._try(vae, x, shape)
            except (IsoprobeError, RuntimeError, ValueError, IndexError, TypeError) as error:
                failed.append(f"{shape}: {' '.join(str(error).split())[:120]}")
                continue
            return vae
        raise OptionError(
            f"{self.source.path} takes rows in no shape that they may have ({'; '.join(failed)}); "
            "say which with --option input_shape=..."
        )

    def _try(self, vae: VAE, x: torch.Tensor, shape: tuple[int, ...]) -> None:
        few = x[:2].to(vae.dtype)
        last = len(shape) == 3 and shape != tuple(x.shape[1:]) and x.ndim == 4
        few = few.movedim(-1, 1) if last else few.reshape(len(few), *shape)
        with torch.no_grad():
            if vae.encode is None:
                raise OptionError("there is no encoder")
            given = vae.decode(vae.encode(few).mean)
        if given.numel() != few.numel():
            raise OptionError(f"it gives {tuple(given.shape[1:])} back")


class Pair(nn.Module):
    """Two loaded functions as one object.

    Args:
        encode: encoder, if there is one.
        decode: decoder.
        owner: module whose methods they are, where they are no modules themselves.
    """

    def __init__(
        self,
        encode: Callable[..., Any] | None,
        decode: Callable[..., Any],
        owner: nn.Module | None = None,
    ) -> None:
        super().__init__()
        owners = [m for m in (owner, encode, decode) if isinstance(m, nn.Module)]
        self.parts = nn.ModuleList(owners)
        if encode is not None:
            self.encode = encode
        self.decode = decode


class EncoderFirst(nn.Module):
    """An encoder whose outputs are mean, scale and perhaps more: only the first two are kept."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, *told: torch.Tensor) -> Any:
        """Return mean and scale."""
        answer = self.inner(x, *told)
        return tuple(answer[:2]) if isinstance(answer, tuple | list) else answer
