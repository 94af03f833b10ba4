"""Read what scvi-tools saved of a model off inert records, and write it as a declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.records import Record
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.scvi import scanvi
from isoprobe_plugins.adapters.weights.storages import load_records

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.checkpoints.source import Source

#: settings that lead to another model than the one read here, and what they have to be
_WANTED: Mapping[str, tuple[Any, ...]] = {
    "gene_likelihood": ("nb", "zinb"),
    "dispersion": ("gene", "gene-cell"),
    "latent_distribution": ("normal",),
    "use_observed_lib_size": (True,),
    "use_size_factor_key": (False,),
    "batch_representation": ("one-hot",),
    "use_layer_norm": ("none",),
    "var_activation": (None,),
    "extra_encoder_kwargs": (None,),
    "extra_decoder_kwargs": (None,),
}
#: what scvi-tools takes where its file does not say
_DEFAULTS: Mapping[str, Any] = {
    "gene_likelihood": "zinb",
    "dispersion": "gene",
    "latent_distribution": "normal",
    "use_observed_lib_size": True,
    "use_size_factor_key": False,
    "batch_representation": "one-hot",
    "use_layer_norm": "none",
    "var_activation": None,
    "extra_encoder_kwargs": None,
    "extra_decoder_kwargs": None,
    "log_variational": True,
}
_EPS = 0.001  # of scvi-tools' batch norms


@dataclass(frozen=True)
class Saved:
    """A model of scvi-tools.

    Attributes:
        model: its class.
        version: of scvi-tools.
        settings: what it was made with, defaults filled in.
        genes: names of the inputs.
        batches: names of the batches in the order of their numbers; none where there is one.
        tensors: weights by name.
        where: how to name the file in an error.
        size: of it, in bytes.
    """

    model: str
    version: str
    settings: Mapping[str, Any]
    genes: tuple[str, ...]
    batches: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    where: str
    size: int


def read_saved(source: Source) -> Saved:
    """Read what scvi-tools saved.

    Args:
        source: its ``model.pt``.

    Returns:
        The model.

    Raises:
        CheckpointError: when the file is damaged, or saves something else.
    """
    import torch

    where, tree = str(source.path), load_records(source)
    kept = _mapping(tree)
    about = _mapping(kept.get("attr_dict"))
    registry = _mapping(about.get("registry_"))
    state = _mapping(kept.get("model_state_dict"))
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    if not about or not tensors or not registry:
        raise CheckpointError(
            f"{where} does not hold what scvi-tools saves since version 0.15: load and save it "
            "with scvi-tools once more"
        )
    fields = _mapping(registry.get("field_registries"))
    batch = _mapping(_mapping(fields.get("batch")).get("state_registry"))
    names = _texts(batch.get("categorical_mapping"))
    count = _mapping(_mapping(fields.get("batch")).get("summary_stats")).get("n_batch", 1)
    if count != 1 and count != len(names):
        raise CheckpointError(
            f"{where}: SCVI tells {count} batches apart, whose names in the file are no texts: "
            "make the batch column one of texts (astype(str)) and train once more"
        )
    covariates = [
        name
        for name in ("extra_categorical_covs", "extra_continuous_covs")
        if _mapping(_mapping(fields.get(name)).get("state_registry"))
    ]
    settings = {**_DEFAULTS, **_made_with(about)}
    if covariates:
        settings["covariates"] = ", ".join(covariates)
    return Saved(
        str(registry.get("model_name")),
        str(registry.get("scvi_version")),
        settings,
        _texts(kept.get("var_names")),
        names if len(names) > 1 else (),
        tensors,
        where,
        source.size,
    )


def _mapping(value: Any) -> dict[str, Any]:
    """A dictionary, or one of a kind of its own, with texts as keys; empty for all else."""
    pairs: Sequence[Any] = ()
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, Record):
        pairs = [pair for pair in value.items if isinstance(pair, tuple) and len(pair) == 2]
    return {key: item for key, item in pairs if isinstance(key, str)}


def _texts(value: Any) -> tuple[str, ...]:
    """The texts of a pickled array of objects; of one of numbers, nothing."""
    if isinstance(value, Record) and isinstance(value.state, tuple) and value.state:
        value = value.state[-1]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return ()
    return tuple(value)


def _made_with(about: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model's class, those of the module's beside them."""
    made = _mapping(about.get("init_params_"))
    given = dict(_mapping(made.get("non_kwargs")))
    for extra in _mapping(made.get("kwargs")).values():
        given |= _mapping(extra)
    return given


def declared(saved: Saved) -> dict[str, Any]:
    """Write a model as a declaration has it.

    Args:
        saved: the model.

    Returns:
        Fields of :class:`isoprobe_plugins.adapters.declared.declaration.Declaration`.

    Raises:
        CheckpointError: for a model, or a setting of it, that is not read here.
    """
    _refuse(saved)
    settings, tensors = saved.settings, saved.tensors
    likelihood, count = settings["gene_likelihood"], len(saved.batches)
    encoder = _layers("z_encoder.encoder.fc_layers", saved, count)
    decoder = _layers("decoder.px_decoder.fc_layers", saved, count)
    rate = [{"linear": "decoder.px_scale_decoder.0"}, {"log_share": 1 if count else 0}]
    cell = settings["dispersion"] == "gene-cell"
    dispersion = [{"linear": "decoder.px_r_decoder"}] if cell else [{"constant": "px_r"}]
    parameters = [rate, dispersion]
    ignored = ["l_encoder."] + (["px_r"] if cell else ["decoder.px_r_decoder."])
    if likelihood == "zinb":
        parameters.append([{"linear": "decoder.px_dropout_decoder"}])
    else:
        ignored.append("decoder.px_dropout_decoder.")
    told = {"classes": [count, 0], "words": "batch and library size", "infer": "data and sum"}
    alone = {"classes": [0], "words": "library size", "infer": "sum"}
    second = saved.model == "SCANVI"
    loss = {"metric": likelihood} if second else {"metric": likelihood, "beta": 1.0}
    genes = len(saved.genes) or int(tensors["decoder.px_scale_decoder.0.weight"].shape[0])
    return {
        "input_shape": [genes],
        "encoder": [*(["log1p"] if settings["log_variational"] else []), *encoder],
        "head": {
            "form": "exp-variance",
            "mean": "z_encoder.mean_encoder",
            "scale": "z_encoder.var_encoder",
        },
        "decoder": decoder,
        "condition": told if count else alone,
        "likelihood": {"metric": likelihood, "parameters": parameters},
        "loss": loss,
        "ignore": [*ignored, *(scanvi.ASIDE if second else ())],
        "note": f"{saved.model} of scvi-tools {saved.version}",
        **({"prior": scanvi.prior_fields()} if second else {}),
    }


def _refuse(saved: Saved) -> None:
    """Raise for a model that is another one than it would be read as."""
    if saved.model not in {"SCVI", "SCANVI"}:
        raise CheckpointError(
            f"{saved.where} is {saved.model} of scvi-tools; SCVI and SCANVI alone are read: build "
            "it in Python (--adapter factory --option target=module:function)"
        )
    if "covariates" in saved.settings:
        raise CheckpointError(
            f"{saved.where}: {saved.model} was trained with {saved.settings['covariates']}; batch "
            "and library size alone are read"
        )
    for name, wanted in _WANTED.items():
        found = saved.settings.get(name)
        if isinstance(found, dict) and not found:
            found = None
        if found not in wanted:
            known = " or ".join(str(value) for value in wanted)
            raise CheckpointError(
                f"{saved.where}: {saved.model} with {name}={str(found)[:60]} is not read; with "
                f"{known} it is"
            )
    needed = ("decoder.px_scale_decoder.0.weight", "z_encoder.mean_encoder.weight")
    missing = next((name for name in needed if saved.tensors.get(name) is None), None)
    if missing is not None or saved.tensors[needed[0]].ndim != 2:
        raise CheckpointError(f"{saved.where}: SCVI without {missing or needed[0]} as a matrix")


def _layers(place: str, saved: Saved, batches: int) -> list[Any]:
    """Dense layers with what they take in: batches join where a layer is as much wider."""
    chain: list[Any] = []
    tensors, before, index = saved.tensors, None, 0
    while (weight := tensors.get(f"{place}.Layer {index}.0.weight")) is not None:
        if weight.ndim != 2:
            raise CheckpointError(f"{saved.where}: {place}.Layer {index}.0.weight is no matrix")
        width = weight.shape[1]
        if before is None:
            first = "z_encoder.mean_encoder.weight"
            decoding = place.startswith("decoder")
            before = tensors[first].shape[0] if decoding else len(saved.genes) or width
        if batches and width == before + batches:
            chain.append({"condition": "one_hot", "classes": batches, "column": 0})
        chain.append({"linear": f"{place}.Layer {index}.0"})
        if f"{place}.Layer {index}.1.running_mean" in tensors:
            chain.append({"batch_norm": f"{place}.Layer {index}.1", "eps": _EPS})
        chain.append("relu")
        before, index = weight.shape[0], index + 1
    if not chain:
        raise CheckpointError(f"{saved.where}: SCVI without {place}")
    return chain
