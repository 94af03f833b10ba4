"""Read SCVI and SCANVI of scvi-tools: counts, library size and batch told of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import NoOptions, construct
from isoprobe_plugins.adapters.declared.adapter import load_declared
from isoprobe_plugins.adapters.declared.declaration import parse_declaration
from isoprobe_plugins.adapters.scvi import scanvi
from isoprobe_plugins.adapters.scvi.saved import Saved, declared, read_saved
from isoprobe_plugins.adapters.weights.names import saved_by_scvi
from isoprobe_plugins.adapters.weights.state import State

FILE = "model.pt"
_SECOND = (
    "the prior of z1 is that of SCANVI's second level and labels, a mixture over "
    f"{scanvi.DRAWS} draws of z2 for each label; it was trained with a bound of it, and its "
    "classifier is left out"
)


class Scvi(Adapter):
    """Reads networks, genes and batches; library size and batch are told of each cell."""

    name = "scvi"
    summary = "SCVI and SCANVI of scvi-tools (nb and zinb), the saved folder or model.pt"

    def matches(self, source: Source) -> bool:
        """Return True for a torch file with the parts that scvi-tools saves, or its folder."""
        file = _file(source)
        return file is not None and saved_by_scvi(file)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Build SCVI's networks as chains of layers and fill them."""
        construct(NoOptions, options, f"adapter '{self.name}'")
        saved = self._saved(source)
        fields = declared(saved)
        left = "tensors of the library size's encoder and of parameters not in use left out"
        tensors, notes = saved.tensors, [left]
        if saved.model == "SCANVI":
            tensors = {**tensors, **scanvi.prior_tensors(tensors, saved.where, saved.size)}
            notes.append(_SECOND)
        vae = load_declared(
            parse_declaration(fields, saved.where),
            State(tensors, tuple(notes)),
            source,
            adapter=self.name,
            where=saved.where,
        )
        vae = vae.with_facts(inputs=saved.genes)
        if saved.model == "SCVI":
            vae = vae.with_facts(beta_source="scvi-tools weighs the KL by 1 after its warm-up")
        if vae.conditional is None or not saved.batches:
            return vae
        return replace(vae, conditional=replace(vae.conditional, names=(saved.batches,)))

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the model's class, likelihood, genes and batches."""
        saved = self._saved(source)
        return {
            "architecture": saved.model,
            "scvi_version": saved.version,
            **{k: saved.settings.get(k) for k in ("gene_likelihood", "dispersion", "n_latent")},
            "genes": len(saved.genes),
            "batches": list(saved.batches),
        }

    @staticmethod
    def _saved(source: Source) -> Saved:
        file = _file(source)
        if file is None:
            raise CheckpointError(f"{source.path} holds no {FILE} of scvi-tools")
        return read_saved(file)


def _file(source: Source) -> Source | None:
    """The file itself, or the one that its folder holds."""
    if not source.is_folder:
        return source
    if source.kind is not FileKind.FOLDER or not (source.path / FILE).is_file():
        return None
    return Source(source.path / FILE)


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Scvi]
