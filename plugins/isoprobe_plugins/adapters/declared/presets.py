"""Layouts so common that nobody should have to declare them, told by their tensors' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.declared.adapter import beside, load_declared
from isoprobe_plugins.adapters.weights.names import tensor_names
from isoprobe_plugins.adapters.weights.state import read_state

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.declared.declaration import Declaration
    from isoprobe_plugins.adapters.weights.state import State

_TUTORIAL = frozenset(
    f"{layer}.{leaf}" for layer in ("fc1", "fc21", "fc22", "fc3", "fc4") for leaf in
    ("weight", "bias")
)  # fmt: skip
_JOINT = frozenset(
    f"{layer}.weight"
    for layer in ("img_to_features.0", "fc_mean", "fc_log_var", "fc_alphas.0", "features_to_img.0")
)


@dataclass(frozen=True)
class TutorialOptions:
    """Options of ``tutorial-mlp``.

    Attributes:
        beta: KL weight; recovered when left out, since people change the tutorial's 1 and keep
            its names.
    """

    beta: float | None = None


class TutorialMlp(Adapter):
    """One hidden layer either way: fc1, fc21 (mean), fc22 (log variance), fc3, fc4."""

    name = "tutorial-mlp"
    summary = "the MNIST VAE of a well-known tutorial: fc1, fc21, fc22, fc3, fc4"

    def matches(self, source: Source) -> bool:
        """Return True when the file has exactly these layers and no declaration."""
        if tensor_names(source) != _TUTORIAL or beside(source).is_file():
            return False
        shapes = _shapes(source)
        if "fc3.weight" not in shapes:  # objects beside the tensors: only their names are known
            return True
        ends = shapes["fc4.weight"][0] == shapes["fc1.weight"][-1]
        return ends and shapes["fc3.weight"][-1] == shapes["fc21.weight"][0]  # else a condition

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read the weights as the tutorial uses them."""
        settings = construct(TutorialOptions, options, f"adapter '{self.name}'")
        state = _holding(_TUTORIAL, source, self.name)
        return load_declared(
            _tutorial(state, settings.beta),
            _with_notes(state, "ReLU, sigmoid output and summed BCE, as in the tutorial"),
            source,
            adapter=self.name,
            where="the layout fc1, fc21, fc22, fc3, fc4",
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return what the layout implies."""
        return {
            "architecture": "MLP of one hidden layer",
            "objective": {
                "metric": "bce",
                "beta": None,
                "beta_source": "unknown: 1 in the tutorial",
            },
            "assumptions": ["ReLU", "sigmoid output", "log variance"],
        }


def _tutorial(state: State, beta: float | None) -> Declaration:
    from isoprobe_plugins.adapters.declared.declaration import parse_declaration

    size = state.tensors["fc1.weight"].shape[1]
    return parse_declaration(
        {
            "input_shape": [size],
            "input_range": [0, 1],
            "encoder": [{"linear": "fc1"}, "relu"],
            "head": {"mean": "fc21", "scale": "fc22", "form": "logvar"},
            "decoder": [{"linear": "fc3"}, "relu", {"linear": "fc4"}],
            "output": "sigmoid",
            "loss": {"metric": "bce", **({} if beta is None else {"beta": beta})},
        },
        "tutorial-mlp",
    )


@dataclass(frozen=True)
class JointOptions:
    """Options of ``joint-vae``.

    Attributes:
        code: which value each discrete latent is held at, such as ``3`` or ``3,0``; each row's own
            most probable one when left out.
    """

    code: str | None = None


class JointVae(Adapter):
    """Continuous latents beside discrete ones, each row at its own most probable code."""

    name = "joint-vae"
    summary = "joint-vae weights; each row at its own code, or all at --option code=K"

    def matches(self, source: Source) -> bool:
        """Return True for such weights, or a folder of model.pt and specs.json with them."""
        weights = _weights(source)
        if weights is None or beside(weights).is_file():
            return False
        if not tensor_names(weights) >= _JOINT:
            return False
        return len(_shapes(weights).get("img_to_features.0.weight", (0,) * 4)) == 4

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read the weights, the discrete latents a condition of each row.

        Args:
            source: weights, or a folder that holds them as model.pt.
            options: fields of :class:`JointOptions`.

        Returns:
            The model over the continuous latents.

        Raises:
            CheckpointError: when there are no such weights.
        """
        settings = construct(JointOptions, options, f"adapter '{self.name}'")
        weights = _weights(source)
        if weights is None:
            raise CheckpointError(f"{source.path} is {source.description}, not joint-vae's weights")
        state = _holding(_JOINT, weights, self.name)
        sizes = _discrete(state)
        code = None if settings.code is None else _read_code(settings.code, sizes)
        note = (
            "the rate is that of the continuous latents alone"
            if code is None
            else f"the discrete latents are held at {settings.code} for all rows"
        )
        return load_declared(
            _joint(state, sizes, code),
            _with_notes(state, note),
            weights,
            adapter=self.name,
            where="joint-vae's layout",
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return what the layout implies."""
        return {
            "architecture": "joint-vae: convolutions, continuous and discrete latents",
            "objective": {
                "metric": "bce",
                "beta": None,
                "beta_source": "unknown: the loss pulls the KL towards a capacity",
            },
            "condition": "each row's most probable discrete code; --option code=K holds one",
        }


def _shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """Shapes by the last two words of a name, whatever stands before them."""
    from isoprobe.checkpoints.contents import tensor_shapes

    every = tensor_shapes(source)
    return {".".join(n.split(".")[-2:]): s for n, s in every.items()} | {
        ".".join(n.split(".")[-3:]): s for n, s in every.items() if n.count(".") > 1
    }


def _holding(names: frozenset[str], source: Source, adapter: str) -> State:
    """Read weights that hold an adapter's layers, which it was named for, maybe wrongly."""
    state = read_state(source)
    missing = sorted(names - state.tensors.keys())
    if missing:
        raise CheckpointError(
            f"{source.path} has no tensor '{missing[0]}', which adapter '{adapter}' reads; leave "
            "--adapter out"
        )
    return state


def _weights(source: Source) -> Source | None:
    if not source.is_folder:
        return source
    return source.child("model.pt") if source.has("model.pt", "specs.json") else None


def _discrete(state: State) -> list[int]:
    """Sizes of the discrete latents, in order."""
    sizes = {
        int(name.split(".")[1]): tensor.shape[0]
        for name, tensor in state.tensors.items()
        if name.startswith("fc_alphas.") and name.endswith(".weight")
    }
    return [sizes[index] for index in sorted(sizes)]


def _read_code(text: str, sizes: Sequence[int]) -> list[float]:
    """Return the one-hot vectors of a code, joined.

    Raises:
        OptionError: when it does not fit the discrete latents.
    """
    parts = text.split(",")
    valid = len(parts) == len(sizes) and all(
        part.strip().isdecimal() and int(part) < size
        for part, size in zip(parts, sizes, strict=False)
    )
    if not valid:
        ranges = ",".join(f"0..{size - 1}" for size in sizes)
        raise OptionError(f"option 'code' of adapter 'joint-vae' is {ranges}; found '{text}'")
    return [
        float(k == int(part)) for part, size in zip(parts, sizes, strict=True) for k in range(size)
    ]


def _joint(state: State, sizes: Sequence[int], code: list[float] | None) -> Declaration:
    from isoprobe_plugins.adapters.declared.declaration import parse_declaration

    convs = _numbered(state, "img_to_features")
    side = 4 * 2 ** len(convs)
    features = state.tensors["features_to_img.0.weight"].shape[0]
    up = _numbered(state, "features_to_img")
    each: dict[str, Any] = {
        "joined": [
            {"condition": "one_hot", "classes": size, "column": column}
            for column, size in enumerate(sizes)
        ],
        "told": {
            "classes": sizes,
            "words": "discrete code",
            "infer": "codes",
            "codes": [f"fc_alphas.{i}" for i in range(len(sizes))],
        },
        "ignore": [],
    }
    if code is not None:
        held = f"discrete code {[i for i, v in enumerate(code) if v]}"
        each = {"joined": [{"append": code}], "told": held, "ignore": ["fc_alphas."]}
    return parse_declaration(
        {
            "input_shape": [state.tensors["img_to_features.0.weight"].shape[1], side, side],
            "input_range": [0, 1],
            "encoder": [
                *(s for n in convs for s in ({"conv": n, "stride": 2, "padding": 1}, "relu")),
                "flatten",
                {"linear": "features_to_hidden.0"},
                "relu",
            ],
            "head": {"mean": "fc_mean", "scale": "fc_log_var", "form": "logvar"},
            "decoder": [
                *each["joined"],
                {"linear": "latent_to_features.0"},
                "relu",
                {"linear": "latent_to_features.2"},
                "relu",
                {"reshape": [features, 4, 4]},
                *_separated([{"conv_transpose": n, "stride": 2, "padding": 1} for n in up]),
            ],
            "output": "sigmoid",
            "loss": {"metric": "bce"},
            "ignore": each["ignore"],
            "condition": each["told"],
        },
        "joint-vae",
    )


def _numbered(state: State, stem: str) -> list[str]:
    """Names of the layers ``stem.0``, ``stem.2`` ... in order."""
    numbers = {
        int(name.split(".")[1])
        for name in state.tensors
        if name.startswith(f"{stem}.") and name.endswith(".weight")
    }
    return [f"{stem}.{number}" for number in sorted(numbers)]


def _separated(layers: list[dict[str, Any]]) -> list[Any]:
    """Put a ReLU between layers."""
    between = [step for layer in layers for step in (layer, "relu")]
    return between[:-1]


def _with_notes(state: State, *notes: str) -> State:
    from dataclasses import replace

    return replace(state, notes=(*state.notes, *notes))


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [TutorialMlp, JointVae]
