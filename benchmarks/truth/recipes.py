"""List the models of the bench: data, network, loss, and how each is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

#: shape of one row of each data set
SHAPES: dict[str, tuple[int, ...]] = {"mnist": (14, 14), "fashion": (14, 14), "digits": (8, 8)}
SHAPES |= {"thyroid": (6,)} | dict.fromkeys(("toy", "spiral", "linear", "heavy", "wave"), (16,))


@dataclass(frozen=True)
class Recipe:
    """A model to train.

    Attributes:
        name: of the model and its file.
        data: a key of :data:`benchmarks.truth.data.SETS`.
        net: kind of network, see :func:`config`.
        loss: distortion D, a key of :data:`benchmarks.truth.losses.LOSSES`.
        beta: weight of the KL in units of D.
        latents: n.
        activation: of hidden layers.
        head: form of the scale head.
        output: of the decoder.
        widths: of the encoder's hidden layers; the decoder's stand in reverse.
        steps: of Adam.
        batch: rows a step.
        rate: learning rate at the start.
        falling: the rate falls to zero by a cosine; else it stays.
        seed: of weights, batches and draws.
        kind: ``sound``, ``biased`` (trained so that the conditions hold only roughly),
            ``twin`` (a second seed, for its encoder), ``snapshot``, ``objective`` or ``curved``.
        objective: what is minimised, see :mod:`benchmarks.truth.losses`.
        of: name of the model that this is a variant of.
        stop: share of the steps after which training stops.
        rows: trained on the first so many rows only.
        dropout: share of hidden units left out in training.
        decay: weight decay, as AdamW has it.
        closed: the weights are the optimum in closed form; nothing is trained.
    """

    name: str
    data: str
    net: str
    loss: str
    beta: float
    latents: int
    activation: str = "relu"
    head: str = "logvar"
    output: str = "linear"
    widths: tuple[int, ...] = (64, 64)
    steps: int = 4000
    batch: int = 256
    rate: float = 2e-3
    falling: bool = True
    seed: int = 0
    kind: str = "sound"
    objective: str = "beta-vae"
    of: str = ""
    stop: float = 1.0
    rows: int | None = None
    dropout: float = 0.0
    decay: float = 0.0
    closed: bool = False

    @property
    def triple(self) -> tuple[str, str, str]:
        """Data, architecture and loss: what the two halves of the bench are split by."""
        return self.data, f"{self.net}-{self.activation}-{self.head}", self.loss


def config(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """Return registered architecture and configuration of a recipe's network.

    ``dense`` is a plain net; ``dense-bn`` has batch norm after every hidden layer; ``conv`` has two
    strided convolutions and dense latents; ``spatial`` keeps the latents as a 4 x 4 image;
    ``spatial-linear`` is the same without any activation; ``affine`` is the linear VAE.
    """
    shape = SHAPES[recipe.data]
    common = {"latent_size": recipe.latents}
    if recipe.net == "affine":
        return "linear", {"input_shape": list(shape), **common}
    if recipe.net == "dense":
        return "mlp", {
            "input_shape": list(shape),
            "encoder_widths": list(recipe.widths),
            "decoder_widths": list(reversed(recipe.widths)),
            "activation": recipe.activation,
            "output": recipe.output,
            "head": recipe.head,
            **common,
        }
    encoder, mean, scale, decoder = _CHAINS[recipe.net](recipe, shape)
    return "layers", {
        "input_shape": list(shape),
        "encoder": encoder,
        "decoder": decoder,
        "head": {"layout": "separate", "form": recipe.head, "mean": mean, "scale": scale},
        "output": recipe.output,
        **common,
    }


Steps = list[dict[str, Any]]
_Chains = tuple[Steps, Steps, Steps, Steps]


def _linear(width: int) -> dict[str, Any]:
    return {"op": "linear", "width": width}


def _normed(recipe: Recipe, shape: tuple[int, ...]) -> _Chains:
    size = 1
    for length in shape:
        size *= length

    def hidden(widths: tuple[int, ...]) -> Steps:
        act = {"op": "activation", "name": recipe.activation}
        return [step for width in widths for step in (_linear(width), {"op": "batch_norm"}, act)]

    encoder = [{"op": "flatten"}, *hidden(recipe.widths)]
    end = [_linear(size), {"op": "reshape", "shape": list(shape)}]
    heads = [_linear(recipe.latents)]
    return encoder, heads, heads, [*hidden(tuple(reversed(recipe.widths))), *end]


def _conv(op: str, channels: int, kernel: int) -> dict[str, Any]:
    return {"op": op, "channels": channels, "kernel": kernel, "stride": 2, "padding": 1}


def _down(recipe: Recipe, shape: tuple[int, ...], act: Steps) -> Steps:
    """14 x 14 to 7 x 7 to 4 x 4."""
    first, second = recipe.widths
    lifted = {"op": "reshape", "shape": [1, *shape]}
    return [lifted, _conv("conv", first, 4), *act, _conv("conv", second, 3), *act]


def _up(recipe: Recipe, shape: tuple[int, ...], act: Steps) -> Steps:
    """4 x 4 to 7 x 7 to 14 x 14."""
    return [
        _conv("conv_transpose", recipe.widths[0], 3),
        *act,
        _conv("conv_transpose", 1, 4),
        {"op": "reshape", "shape": list(shape)},
    ]


def _convolutional(recipe: Recipe, shape: tuple[int, ...]) -> _Chains:
    act: Steps = [{"op": "activation", "name": recipe.activation}]
    channels = recipe.widths[1]
    start = [_linear(channels * 16), *act, {"op": "reshape", "shape": [channels, 4, 4]}]
    heads = [_linear(recipe.latents)]
    encoder = [*_down(recipe, shape, act), {"op": "flatten"}]
    return encoder, heads, heads, [*start, *_up(recipe, shape, act)]


def _spatial(recipe: Recipe, shape: tuple[int, ...]) -> _Chains:
    act: Steps = [{"op": "activation", "name": recipe.activation}]
    channels = recipe.widths[1]
    same: dict[str, Any] = {"op": "conv", "kernel": 3, "padding": 1}
    heads: Steps = [{**same, "channels": recipe.latents // 16}]
    start: Steps = [
        {"op": "reshape", "shape": [recipe.latents // 16, 4, 4]},
        {**same, "channels": channels},
        *act,
    ]
    return _down(recipe, shape, act), heads, heads, [*start, *_up(recipe, shape, act)]


_CHAINS = {"dense-bn": _normed, "conv": _convolutional, "spatial": _spatial}


# --------------------------------------------------------------------------- sound models

_IMAGE: dict[str, Any] = {"widths": (128, 64), "steps": 5000}
_SHORTER: dict[str, Any] = {**_IMAGE, "steps": 4000}
_CONV: dict[str, Any] = {"net": "conv", "widths": (16, 16), "steps": 4500, "batch": 128}


def _sound() -> list[Recipe]:
    unit: dict[str, Any] = {"output": "sigmoid"}
    image, conv = _IMAGE, _CONV
    shorter, quick = _SHORTER, {**_CONV, "steps": 3500}
    spatial, brief = {**conv, "net": "spatial"}, {**quick, "net": "spatial"}
    return [
        Recipe("mnist-sse-1", "mnist", "dense", "sse", 1.0, 8, "relu", **image),
        Recipe("mnist-sse-0.1", "mnist", "dense", "sse", 0.1, 10, "elu", "logstd", **image),
        Recipe("mnist-bce-1", "mnist", "dense", "bce", 1.0, 8, "relu", **unit, **image),
        Recipe("mnist-bce-4", "mnist", "dense", "bce", 4.0, 10, **unit, **{**image, "steps": 8000}),
        Recipe("mnist-l1-1", "mnist", "dense", "l1", 1.0, 6, "silu", **unit, **image),
        Recipe("mnist-gauss-1", "mnist", "dense", "gaussian", 1.0, 8, "elu", **image),
        Recipe("mnist-conv-bce-1", "mnist", loss="bce", beta=1.0, latents=6, **unit, **conv),
        Recipe(
            "mnist-spatial-sse-0.5",
            "mnist",
            loss="sse",
            beta=0.5,
            latents=16,
            activation="elu",
            **spatial,
        ),
        Recipe(
            "fashion-bce-1", "fashion", "dense", "bce", 1.0, 8, "silu", "logstd", **unit, **image
        ),
        Recipe("fashion-bce-10", "fashion", "dense", "bce", 10.0, 6, "relu", **unit, **shorter),
        Recipe(
            "fashion-sse-0.5", "fashion", "dense", "sse", 0.5, 4, "tanh", "softplus-std", **image
        ),
        Recipe("fashion-mse-0.01", "fashion", "dense", "mse", 0.01, 6, "elu", **unit, **shorter),
        Recipe("fashion-logcosh-0.2", "fashion", "dense", "logcosh", 0.2, 5, "elu", **shorter),
        Recipe("fashion-conv-sse-1", "fashion", loss="sse", beta=1.0, latents=8, **quick),
        Recipe(
            "fashion-conv-ssim-0.01",
            "fashion",
            loss="ssim",
            beta=0.01,
            latents=6,
            activation="silu",
            **unit,
            **quick,
        ),
        Recipe(
            "fashion-spatial-bce-2",
            "fashion",
            loss="bce",
            beta=2.0,
            latents=16,
            activation="silu",
            **unit,
            **brief,
        ),
        Recipe(
            "fashion-spatial-linear-sse-1",
            "fashion",
            loss="sse",
            beta=1.0,
            latents=16,
            activation="identity",
            **brief,
        ),
        Recipe("digits-bce-1", "digits", "dense", "bce", 1.0, 4, "relu", **unit),
        Recipe("digits-sse-0.1", "digits", "dense", "sse", 0.1, 6, "elu"),
        Recipe("digits-sse-0.5", "digits", "dense", "sse", 0.5, 4, "tanh", **unit),
        Recipe("digits-l1-0.5", "digits", "dense", "l1", 0.5, 4, "silu"),
        Recipe("digits-gauss-1", "digits", "dense", "gaussian", 1.0, 6, "elu", "logstd"),
        Recipe("digits-bce-2", "digits", "dense", "bce", 2.0, 16, "tanh", "softplus-std", **unit),
        Recipe("digits-mse-0.01", "digits", "dense", "mse", 0.01, 5, "relu", "logstd"),
        Recipe("toy-sse-0.01", "toy", "dense", "sse", 0.01, 3, "tanh"),
        Recipe("toy-sse-0.1", "toy", "dense", "sse", 0.1, 5, "silu"),
        Recipe("toy-l1-0.5", "toy", "dense", "l1", 0.5, 3, "relu", "logstd"),
        Recipe("toy-gauss-1", "toy", "dense", "gaussian", 1.0, 4, "elu"),
        Recipe("thyroid-sse-0.5", "thyroid", "dense", "sse", 0.5, 4, "relu"),
        Recipe("thyroid-l1-0.5", "thyroid", "dense", "l1", 0.5, 3, "elu"),
        Recipe("spiral-sse-0.1", "spiral", "dense", "sse", 0.1, 3, "silu"),
        Recipe("spiral-sse-0.5", "spiral", "dense", "sse", 0.5, 2, "tanh", "logstd", steps=8000),
        Recipe("linear-sse-1", "linear", "affine", "sse", 1.0, 6, "identity", closed=True),
        Recipe("linear-sse-10", "linear", "affine", "sse", 10.0, 4, "identity", closed=True),
        Recipe("linear-dense-sse-0.5", "linear", "dense", "sse", 0.5, 6, "tanh"),
        Recipe("heavy-sse-0.1", "heavy", "dense", "sse", 0.1, 4, "relu"),
        Recipe("heavy-l1-0.5", "heavy", "dense", "l1", 0.5, 4, "elu"),
    ]


def _biased() -> list[Recipe]:
    return [
        Recipe(
            "digits-bn-bce-1",
            "digits",
            "dense-bn",
            "bce",
            1.0,
            4,
            "relu",
            output="sigmoid",
            kind="biased",
        ),
        Recipe(
            "fashion-bn-sse-0.5",
            "fashion",
            "dense-bn",
            "sse",
            0.5,
            6,
            "elu",
            kind="biased",
            **_SHORTER,
        ),
        Recipe("toy-bn-sse-0.1", "toy", "dense-bn", "sse", 0.1, 4, "silu", kind="biased"),
        Recipe(
            "fashion-dropout-sse-1",
            "fashion",
            "dense",
            "sse",
            1.0,
            6,
            "relu",
            kind="biased",
            dropout=0.1,
            **_SHORTER,
        ),
        Recipe(
            "toy-decay-sse-0.1", "toy", "dense", "sse", 0.1, 4, "elu", kind="biased", decay=0.02
        ),
    ]


def _curved() -> list[Recipe]:
    """Sound models whose decoder bends within a sigma: the expansion at a point is rough there."""
    return [
        Recipe("wave-sse-2", "wave", "dense", "sse", 2.0, 1, "silu", kind="curved"),
        Recipe("wave-sse-1", "wave", "dense", "sse", 1.0, 1, "tanh", "logstd", kind="curved"),
        Recipe("wave-gauss-2", "wave", "dense", "gaussian0.5", 2.0, 1, "elu", kind="curved"),
    ]


SOUND = _sound()
_BY_NAME = {recipe.name: recipe for recipe in SOUND}

# --------------------------------------------------------------------------- variants

#: models that were trained for other objectives too, stopped early, and with another seed
#: name -> steps of those variants
BASES = {"toy-sse-0.1": 4000, "digits-bce-1": 2000, "spiral-sse-0.1": 2000}
OBJECTIVES = (
    "capacity", "free-bits", "total-correlation", "wide-prior", "shifted-prior", "mixture-prior",
    "own-beta", "iwae", "fixed-sigma",
)  # fmt: skip


def _variants() -> list[Recipe]:
    found = []
    for base, steps in BASES.items():
        of = replace(_BY_NAME[base], of=base, steps=steps, kind="objective")
        found += [replace(of, name=f"{base}+{o}", objective=o) for o in OBJECTIVES]
        found.append(replace(of, name=f"{base}+twin", kind="twin", seed=1))
    for base, steps in BASES.items():
        of = replace(_BY_NAME[base], of=base, kind="snapshot")
        brief = replace(of, steps=steps)
        found += [
            replace(of, name=f"{base}+one-epoch", stop=-1.0),
            *(replace(of, name=f"{base}+{share:.0%}", stop=share) for share in (0.1, 0.25, 0.5)),
            replace(brief, name=f"{base}+hot", rate=2e-2, falling=False),
            replace(brief, name=f"{base}+annealing", objective="annealing", stop=0.5),
            replace(brief, name=f"{base}+300-rows", rows=300),
        ]
    return found


RECIPES: list[Recipe] = [*SOUND, *_biased(), *_curved(), *_variants()]


def recipe(name: str) -> Recipe:
    """Return the recipe of a model by its name."""
    return next(r for r in RECIPES if r.name == name)
