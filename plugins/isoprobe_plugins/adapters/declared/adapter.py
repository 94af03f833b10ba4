"""Load weights with a declaration beside them: ``vae.pt`` and ``vae.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.checkpoints.source import WEIGHT_KINDS
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.declared.declaration import read_declaration
from isoprobe_plugins.adapters.weights.named import fill_layers
from isoprobe_plugins.adapters.weights.state import read_state

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.declared.declaration import Declaration
    from isoprobe_plugins.adapters.weights.state import State


@dataclass(frozen=True)
class DeclaredOptions:
    """Options of ``declared``.

    Attributes:
        declaration: TOML file; the one beside the weights when left out.
        weights: which set of weights, where a file holds several.
    """

    declaration: str | None = None
    weights: str | None = None


class Declared(Adapter):
    """Reads weights by a declared architecture."""

    name = "declared"
    summary = "weights with a TOML file that says what the layers are"

    def matches(self, source: Source) -> bool:
        """Return True for a weights file with a TOML file of the same name beside it."""
        return source.kind in WEIGHT_KINDS and beside(source).is_file()

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read declaration and weights."""
        settings = construct(DeclaredOptions, options, f"adapter '{self.name}'")
        typed = bool(settings.declaration)
        path = Path(settings.declaration or beside(source))
        if not (path.exists() if typed else path.is_file()):
            raise CheckpointError(
                f"{source.path} needs a declaration {path.name} beside it, or named with --option "
                "declaration=FILE; `isoprobe doctor` writes one to start from"
            )
        declaration = read_declaration(path, typed=typed)
        state = read_state(source, declaration.prefix, settings.weights)
        return load_declared(declaration, state, source, adapter=self.name, where=str(path))

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the declaration."""
        import msgspec

        if not beside(source).is_file():
            return {}
        described: dict[str, Any] = msgspec.to_builtins(read_declaration(beside(source)))
        return {"architecture": "declared", **described}


def beside(source: Source) -> Path:
    """Return where the declaration of a weights file stands."""
    return source.path.with_suffix(".toml")


def load_declared(
    declaration: Declaration, state: State, source: Source, *, adapter: str, where: str
) -> VAE:
    """Build a declared model and fill it.

    Args:
        declaration: what is declared.
        state: the weights.
        source: the file they come from.
        adapter: name of the adapter at work.
        where: how to name the declaration.

    Returns:
        The model.

    Raises:
        CheckpointError: for a draft that is doubtful, or tensors that do not fit.
    """
    if declaration.doubtful:
        raise CheckpointError(
            f"{where} is a draft that data did not bear out: {declaration.doubtful}. Compare its "
            "steps with the model's code, then take the line 'doubtful' out"
        )
    tensors = {
        name: tensor
        for name, tensor in state.tensors.items()
        if not name.startswith(tuple(declaration.ignore))
    }
    declaration.refuse_left_out_prior(state.tensors.keys() - tensors.keys(), where)
    config = declaration.config(tensors, where)
    networks = fill_layers(config, tensors, str(source.path))
    vae = vae_from_networks(
        networks,
        declaration.facts(config, where, state.notes),
        name=source.path.stem,
        adapter=adapter,
        sha256=source.sha256(),
        condition=declaration.condition if isinstance(declaration.condition, str) else "",
    )
    pad = declaration.pad
    vae.pad = (pad, pad) if isinstance(pad, int) else pad
    return vae


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Declared]
