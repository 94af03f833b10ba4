"""Read a TorchScript archive with entry points encode and decode, or a pair of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.adapters.objects.two_files import PairOptions, sources_of
from isoprobe_plugins.adapters.programs.entries import Programs
from isoprobe_plugins.adapters.programs.script import load_script
from isoprobe_plugins.adapters.weights.names import why_quantised, why_unsupported

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import Adapter


class TorchScript(Programs):
    """Reads scripted or traced modules whose operators are among those that networks need."""

    name = "torchscript"
    summary = "TorchScript with methods encode and decode, or a pair: --option decoder=FILE"
    kind = FileKind.TORCHSCRIPT

    def entries(self, source: Source, settings: PairOptions) -> Any:
        """Load the archive, or both."""
        from isoprobe_plugins.adapters.objects.pairs import EncoderFirst, Pair

        if not source.is_folder and settings.decoder is None:
            return _entry_points(source)
        encoder, decoder = sources_of(source, settings, self.kind)
        encode = None if encoder is None else EncoderFirst(_load(encoder))
        return Pair(encode, _load(decoder))


def _entry_points(source: Source) -> Any:
    """Return the module of an archive that has both methods.

    Raises:
        CheckpointError: naming the methods it has instead, or the kind of model it is.
    """
    from isoprobe_plugins.adapters.objects.pairs import Pair
    from isoprobe_plugins.adapters.programs.bounded import Bounded

    module = load_script(source)
    names = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    reason = why_unsupported(names) or why_quantised(names)
    if reason is not None:
        raise CheckpointError(f"{source.path} is {reason}")
    if not (hasattr(module, "encode") and hasattr(module, "decode")):
        has = sorted(n for n in module._c._method_names())
        raise CheckpointError(
            f"{source.path} has the methods {', '.join(has)}; needed are encode and decode, marked "
            "with @torch.jit.export, or a second file with --option decoder=FILE"
        )
    encode, decode = Bounded(module.encode, source), Bounded(module.decode, source)
    return Pair(encode, decode, module)


def _load(source: Source) -> Any:
    from isoprobe_plugins.adapters.programs.bounded import Bounded

    return Bounded(load_script(source), source)


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [TorchScript]
