"""TorchScript archives with entry points encode and decode, or a pair of them."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

CODE_LIMIT = 8 << 20
#: what a network has no use for, and what would reach files or foreign libraries
_FORBIDDEN = re.compile(
    r"\b(from_file|torch\.save|save|__torch__\.torch\.classes|ops\.(?!prim|aten)\w+)\s*[.(]"
)


class TorchScript(Adapter):
    """Reads scripted or traced modules, their code looked at first."""

    name = "torchscript"
    summary = "TorchScript with methods encode and decode, or a pair: --option decoder=FILE"

    def matches(self, source: Source) -> bool:
        """Return True for such an archive, or a folder of an encoder's and a decoder's."""
        from isoprobe_plugins.adapters.objects.pairs import is_pair

        return source.kind is FileKind.TORCHSCRIPT or is_pair(source, FileKind.TORCHSCRIPT)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Load the archive and wrap its entry points.

        Args:
            source: the archive, the encoder's archive, or a folder of both.
            options: fields of :class:`~isoprobe_plugins.adapters.objects.pairs.PairOptions`.

        Returns:
            The model.
        """
        from isoprobe_plugins.adapters.objects.pairs import (
            EncoderFirst,
            Pair,
            PairOptions,
            sources_of,
        )
        from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

        settings = construct(PairOptions, options, f"adapter '{self.name}'")
        if not source.is_folder and settings.decoder is None:
            built: Any = _entry_points(source)
        else:
            encoder, decoder = sources_of(source, settings, FileKind.TORCHSCRIPT)
            encode = None if encoder is None else EncoderFirst(_load(encoder))
            built = Pair(encode, _load(decoder))
        return vae_from_object(built, settings, str(source.path), source, adapter=self.name)


def _entry_points(source: Source) -> Any:
    """Return the module of an archive that has both methods.

    Raises:
        CheckpointError: naming the methods it has instead, or the kind of model it is.
    """
    from isoprobe_plugins.adapters.objects.pairs import Pair
    from isoprobe_plugins.adapters.weights.names import why_unsupported

    module = _load(source)
    names = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    reason = why_unsupported(names)
    if reason is not None:
        raise CheckpointError(f"{source.path} is {reason}")
    if not (hasattr(module, "encode") and hasattr(module, "decode")):
        has = sorted(n for n in module._c._method_names())
        raise CheckpointError(
            f"{source.path} has the methods {', '.join(has)}; needed are encode and decode, marked "
            "with @torch.jit.export, or a second file with --option decoder=FILE"
        )
    return Pair(module.encode, module.decode, module)


def _load(source: Source) -> Any:
    import torch

    if source.kind is not FileKind.TORCHSCRIPT:
        raise CheckpointError(f"{source.path} is {source.description}, not TorchScript")
    _look_at_code(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
            module: Any = torch.jit.load(  # type: ignore[no-untyped-call]
                str(source.path), map_location="cpu"
            )
            return module.eval()
    except (RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{source.path} is damaged: {lines[0]}") from error


def _look_at_code(source: Source) -> None:
    """Raise CheckpointError when the archive's code does more than compute."""
    with zipfile.ZipFile(source.path) as archive:
        total = sum(info.file_size for info in archive.infolist())
    if total > 4 * source.size + CODE_LIMIT:
        raise CheckpointError(
            f"{source.path} unpacks to {total} bytes, far more than it has: it is hostile"
        )
    for name in source.names():
        if "/code/" in f"/{name}" and name.endswith(".py"):
            text = source.read(name, CODE_LIMIT).decode(errors="replace")
            found = _FORBIDDEN.search(text)
            if found is not None:
                raise CheckpointError(
                    f"{source.path}: its code calls {found[1]}, which no network needs; it is not "
                    "run"
                )


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [TorchScript]
