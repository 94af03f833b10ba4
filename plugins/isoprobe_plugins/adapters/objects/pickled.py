"""Load models pickled whole, class and all: that runs code, so only where the user trusts it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.declared.adapter import beside
from isoprobe_plugins.adapters.objects.calling import said, working_folder_first
from isoprobe_plugins.adapters.objects.options import ModelOptions
from isoprobe_plugins.adapters.objects.trusting import require_trust
from isoprobe_plugins.adapters.weights.names import tensor_names, why_unsupported

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

_KINDS = frozenset({FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.PICKLE})


class Pickled(Adapter):
    """Unpickles a model with encode and decode; its class must be importable here."""

    name = "pickle"
    summary = "models pickled whole; unpickling runs their code, so only with --trust"

    def matches(self, source: Source) -> bool:
        """Return True for a trusted pickle of a whole model that nothing reads without running."""
        if not source.trusted or source.kind not in _KINDS or beside(source).is_file():
            return False
        names = tensor_names(source)
        by_name = any("." in name for name in names)  # weights that need no code to be read
        return _foreign(source) != () and not by_name and why_unsupported(names) is None

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Unpickle and wrap.

        Args:
            source: the file, trusted.
            options: fields of :class:`~isoprobe_plugins.adapters.objects.options.ModelOptions`.

        Returns:
            The model.

        Raises:
            CheckpointError: when it is not trusted, not a pickle, or does not hold such a model.
        """
        from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

        settings = construct(ModelOptions, options, f"adapter '{self.name}'")
        if source.kind not in _KINDS:
            raise CheckpointError(f"{source.path} is {source.description}, not a pickled model")
        require_trust(
            source,
            f"unpickling it would build objects of {', '.join(_foreign(source)[:1]) or 'a class'}",
            "describe its layers in a TOML file beside it (isoprobe doctor helps), so that its "
            "tensors are read without",
        )
        model = _model_in(_unpickle(source), source)
        return vae_from_object(model, settings, str(source.path), source, adapter=self.name)

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the classes that loading would build."""
        return {"architecture": "pickled whole", "builds": list(_foreign(source))}


def _foreign(source: Source) -> tuple[str, ...]:
    return () if source.pickle is None else source.pickle.foreign


def _unpickle(source: Source) -> Any:
    """Run the pickle.

    Returns:
        What it builds.

    Raises:
        CheckpointError: with whatever it fails on, in one line.
    """
    import torch

    try:
        with working_folder_first():
            if source.kind is FileKind.PICKLE:
                with source.path.open("rb") as stream:
                    return pickle.load(stream)  # noqa: S301 - the user trusts it
            return torch.load(source.path, map_location="cpu", weights_only=False)
    except Exception as error:  # a stranger's code may fail in any way
        raise CheckpointError(
            f"{source.path} cannot be unpickled here: {said(error)}; its classes must be "
            "importable, from an installed package or the working folder"
        ) from error


def _model_in(saved: Any, source: Source) -> Any:
    """Return the object with a decoder: what was pickled, or the one inside a dictionary."""
    inside = list(saved.values()) if isinstance(saved, Mapping) else []
    models = [item for item in (saved, *inside) if callable(getattr(item, "decode", None))]
    if len(models) != 1:
        raise CheckpointError(
            f"{source.path} unpickles to a {type(saved).__name__} with {len(models)} objects that "
            "decode; expected one with encode(x) and decode(z). Wrap it with --adapter factory "
            "--option target=module:function"
        )
    return models[0]


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Pickled]
