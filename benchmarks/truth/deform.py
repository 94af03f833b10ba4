"""Deform a model, its data or what is declared of it, each deformation with the causes it has.

A deformation works through what a caller may hand to ``isoprobe.analyze``: functions in place of
``encode`` and ``decode``, other rows, another declared metric or beta. Causes are words of this
bench, see :mod:`benchmarks.truth.judging`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.truth import data
from benchmarks.truth.recipes import Recipe
from isoprobe import VAE, Posterior

#: a latent that carries more than this counts as used, nats
USED = 0.05


@dataclass(frozen=True)
class Subject:
    """What is analysed.

    Attributes:
        vae: the model.
        rows: judged on, ``(N, *shape)`` float32.
        metric: spec declared; a key of the bench's own losses where isoprobe knows none.
        beta: declared.
        entry: of the model in the manifest.
        recipe: of the model.
        sibling: loads another model of the bench by name.
    """

    vae: VAE
    rows: np.ndarray
    metric: str
    beta: float
    entry: dict[str, Any]
    recipe: Recipe
    sibling: Callable[[str], VAE]

    @property
    def used(self) -> list[int]:
        """Latents that carry something, the most first."""
        rates = self.entry["rates"]
        return [int(j) for j in np.argsort(rates)[::-1] if rates[j] > USED]

    @property
    def idle(self) -> list[int]:
        """Latents that carry nothing."""
        return [j for j in range(self.recipe.latents) if self.entry["rates"][j] < USED / 5]


Change = Callable[[Subject], Subject]
Fits = Callable[[Recipe, dict[str, Any]], bool]


def _any(_recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Deformation:
    """A planted fault.

    Attributes:
        name: short.
        group: row of the table of kinds.
        causes: what may be named; one of them is enough.
        change: makes it.
        fits: which models can have it.
        harmless: nothing is wrong with the figures, so that "sound" is right as well.
        models: names of the models it is made on; chosen by rule when empty.
    """

    name: str
    group: str
    causes: frozenset[str]
    change: Change
    fits: Fits = _any
    harmless: bool = False
    models: tuple[str, ...] = field(default=())


def random_of(subject: Subject, what: str) -> np.random.Generator:
    """Return numbers that depend on the model and the deformation alone."""
    text = f"{subject.recipe.name}|{what}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))


# --------------------------------------------------------------------------- parts of a model


def encoding(change: Callable[[Posterior], Posterior]) -> Change:
    """Change what the encoder gives."""

    def changed(s: Subject) -> Subject:
        encode = _encoder(s.vae)
        return replace(s, vae=replace(s.vae, encode=lambda x: change(encode(x))))

    return changed


def _encoder(vae: VAE) -> Callable[[Tensor], Posterior]:
    if vae.encode is None:
        raise ValueError(f"{vae.name} has no encoder")
    return vae.encode


def taking(s: Subject, change: Callable[[Tensor], Tensor]) -> Subject:
    """Change the latents on their way into the decoder."""
    decode, logits = s.vae.decode, s.vae.decode_logits
    both = None if logits is None else (lambda z: logits(change(z)))
    return replace(s, vae=replace(s.vae, decode=lambda z: decode(change(z)), decode_logits=both))


def giving(s: Subject, change: Callable[[Tensor], Tensor]) -> Subject:
    """Change what the decoder gives; logits, where it had them, are lost."""
    decode = s.vae.decode
    changed = replace(s.vae, decode=lambda z: change(decode(z)), decode_logits=None)
    return replace(s, vae=changed)


def part(vae: VAE, name: str) -> nn.Module:
    """Return ``encoder`` or ``decoder`` of a model read from a native checkpoint."""
    if vae.module is None:
        raise ValueError(f"{vae.name} holds no module")
    return vae.module.get_submodule(name)


# --------------------------------------------------------------------------- what is declared


def beta_times(factor: float) -> Change:
    """Declare another beta."""
    return lambda s: replace(s, beta=s.beta * factor)


def metric_is(spec: str) -> Change:
    """Declare another metric, and the same number for beta."""
    return lambda s: replace(s, metric=spec)


# --------------------------------------------------------------------------- data


def rows_are(change: Callable[[Subject], np.ndarray]) -> Change:
    """Judge on other rows."""
    return lambda s: replace(s, rows=np.ascontiguousarray(change(s), dtype=np.float32))


OTHER = {"mnist": "fashion", "fashion": "mnist", "toy": "spiral", "spiral": "linear"}
OTHER |= {"linear": "heavy", "heavy": "toy"}


def another_set(s: Subject) -> np.ndarray:
    """Return as many rows of another set of the same shape."""
    return data.rows(OTHER[s.recipe.data]).train[: len(s.rows)]


def _one_class(s: Subject) -> np.ndarray:
    rows = data.rows(s.recipe.data)
    ones: np.ndarray = rows.train[rows.classes == 1]
    return ones


def _noisy(s: Subject) -> np.ndarray:
    noise = random_of(s, "noise").standard_normal(s.rows.shape)
    if s.rows.ndim == 3:
        noisy: np.ndarray = np.clip(s.rows + 0.2 * noise, 0, 1)
        return noisy
    return np.asarray(s.rows + 0.5 * s.rows.std() * noise)


def _padded(s: Subject) -> np.ndarray:
    """Make images smaller and pad them to the size they had."""
    side = s.rows.shape[1]
    small = functional.interpolate(
        torch.from_numpy(s.rows.copy())[:, None], size=(side - 4, side - 4), mode="area"
    )
    return functional.pad(small, (2, 2, 2, 2))[:, 0].numpy()


def _images(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return recipe.data in {"mnist", "fashion", "digits"}


def _tables(recipe: Recipe, entry: dict[str, Any]) -> bool:
    return not _images(recipe, entry)


# --------------------------------------------------------------------------- reading the encoder


def _raw(s: Subject) -> Callable[[Tensor], Tensor]:
    """What the scale head gave before it became sigma."""
    if s.recipe.head == "logvar":
        return lambda std: 2 * std.log()
    if s.recipe.head == "logstd":
        return torch.log
    return lambda std: std + torch.log(-torch.expm1(-std))


def _softplus_for_exp(s: Subject) -> Subject:
    raw = _raw(s)
    return encoding(lambda p: Posterior(p.mean, functional.softplus(raw(p.std))))(s)


def _heads_swapped(s: Subject) -> Subject:
    raw = _raw(s)
    return encoding(lambda p: Posterior(raw(p.std), (p.mean / 2).exp()))(s)


def _interleaved(s: Subject) -> Subject:
    """Read a head of halves (means first) as mean and log variance in turns."""
    raw = _raw(s)

    def read(p: Posterior) -> Posterior:
        both = torch.cat([p.mean, raw(p.std)], dim=1)
        return Posterior(both[:, 0::2], (both[:, 1::2] / 2).exp())

    return encoding(read)(s)


def _head(*forms: str) -> Fits:
    return lambda recipe, _entry: recipe.head in forms and recipe.net != "affine"


# --------------------------------------------------------------------------- reading the decoder

_EXCHANGE: dict[type[nn.Module], type[nn.Module]] = {
    nn.ReLU: nn.Tanh,
    nn.ELU: nn.ReLU,
    nn.SiLU: nn.Tanh,
    nn.Tanh: nn.ReLU,
}


class BatchStatistics(nn.Module):
    """Batch norm that uses the statistics of the batch it sees, as in training."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the batch."""
        centered = x - x.mean(0, keepdim=True)
        scaled = centered / (centered.square().mean(0, keepdim=True) + self.norm.eps).sqrt()
        return scaled * self.norm.weight + self.norm.bias


def exchange(module: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace submodules in place where ``make`` gives another one."""
    for name, child in module.named_children():
        other = make(child)
        if other is None:
            exchange(child, make)
        else:
            setattr(module, name, other)


def _other_activation(s: Subject) -> Subject:
    exchange(
        part(s.vae, "decoder"),
        lambda m: _EXCHANGE[type(m)]() if type(m) in _EXCHANGE else None,
    )
    return s


def _training_norm(s: Subject) -> Subject:
    exchange(
        part(s.vae, "decoder"),
        lambda m: BatchStatistics(m) if isinstance(m, nn.BatchNorm1d) else None,
    )
    return s


def _zeroed_bias(s: Subject) -> Subject:
    """Zero the bias of the decoder's layer where that hurts the reconstruction most."""
    decoder = part(s.vae, "decoder")
    biases = [p for n, p in decoder.named_parameters() if n.endswith("bias")]
    x = torch.from_numpy(s.rows[:256].copy())
    with torch.no_grad():
        z = _encoder(s.vae)(x).mean
        harm = []
        for bias in biases:
            kept = bias.clone()
            bias.zero_()
            harm.append(float((decoder(z) - x).square().sum()))
            bias.copy_(kept)
        biases[harm.index(max(harm))].zero_()
    return s


def _without_output(s: Subject) -> Subject:
    logits = s.vae.decode_logits
    return replace(s, vae=replace(s.vae, decode=logits or s.vae.decode, decode_logits=None))


def _sigmoid_twice(s: Subject) -> Subject:
    decode = s.vae.decode
    twice = replace(s.vae, decode=lambda z: decode(z).sigmoid(), decode_logits=decode)
    return replace(s, vae=twice)


def _sigmoid(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return recipe.output == "sigmoid"


def _activated(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return recipe.activation != "identity"


# --------------------------------------------------------------------------- fit of the two


def _permuted(s: Subject) -> Subject:
    """Give the used latents in another order, each in the next one's place."""
    used = sorted(s.used)
    order = list(range(s.recipe.latents))
    for here, there in zip(used, used[1:] + used[:1], strict=True):
        order[here] = there
    return encoding(lambda p: Posterior(p.mean[:, order], p.std[:, order]))(s)


def rotation(s: Subject) -> Tensor:
    """Return a rotation of the used latents among each other, ``(n, n)`` orthogonal."""
    used = sorted(s.used)
    drawn = random_of(s, "rotation").standard_normal((len(used), len(used)))
    turned = torch.eye(s.recipe.latents)
    q = torch.from_numpy(np.linalg.qr(drawn)[0]).float()
    turned[np.ix_(used, used)] = q
    return turned


def rotated_both(s: Subject) -> Subject:
    """Rotate latents in encoder and decoder; sigma^-2 as the rotated optimum has it."""
    r = rotation(s)

    def turned(p: Posterior) -> Posterior:
        return Posterior(p.mean @ r, (p.std.pow(-2) @ r.square()).rsqrt())

    return taking(encoding(turned)(s), lambda z: z @ r.T)


def rotated_decoder(s: Subject) -> Subject:
    """Rotate the decoder's latents alone."""
    r = rotation(s)
    return taking(s, lambda z: z @ r.T)


def column_times(factor: float) -> Change:
    """Scale the decoder's answer to the most used latent by scaling that latent."""

    def changed(s: Subject) -> Subject:
        scale = torch.ones(s.recipe.latents)
        scale[s.used[0]] = factor
        return taking(s, lambda z: z * scale)

    return changed


def _other_encoder(s: Subject) -> Subject:
    twin = s.sibling(f"{s.recipe.name}+twin")
    return replace(s, vae=replace(s.vae, encode=twin.encode))


def _several(recipe: Recipe, entry: dict[str, Any]) -> bool:
    return recipe.net != "spatial" and sum(rate > USED for rate in entry["rates"]) >= 2


def _dense(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return recipe.net != "spatial"


# --------------------------------------------------------------------------- idle and over-sharp


def _idle_sigma(s: Subject) -> Subject:
    """Leave two idle latents at sigma^2 = 0.5."""
    chosen = torch.zeros(s.recipe.latents, dtype=torch.bool)
    chosen[s.idle[:2]] = True
    half = 0.5**0.5

    def changed(p: Posterior) -> Posterior:
        return Posterior(
            p.mean.masked_fill(chosen, 0.0),
            torch.where(chosen, torch.full_like(p.std, half), p.std),
        )

    return encoding(changed)(s)


def _sharp(s: Subject) -> Subject:
    """Make sigma of the most used latent a thousand times too small."""
    scale = torch.ones(s.recipe.latents)
    scale[s.used[0]] = 1e-3
    return encoding(lambda p: Posterior(p.mean, p.std * scale))(s)


#: a row in so many uses the rare latent
RARE = 1000
#: where the rare latent's mean stands, and where its ramp begins
AT, FROM = 5.0, 3.5


def rare(s: Subject) -> Subject:
    """Let one row in a thousand use an idle latent, at its optimum.

    An input is added to the vector; the decoder answers to the latent by a ramp a (z - 3.5)_+ in
    that input. A row that uses it has mean 5 and sigma^2 = (beta/2) / (a^2 + beta/2), and the
    input d = 1.5 a + 2.5 beta / a there, so that both conditions hold for sse.

    Args:
        s: a model on vectors with an idle latent.

    Returns:
        The model and rows with one input more.
    """
    latent, beta = s.idle[0], s.beta
    slope = 3 * beta**0.5
    height = slope * (AT - FROM) + beta * AT / (2 * slope)
    sharp = (beta / 2 / (slope**2 + beta / 2)) ** 0.5
    rows = np.concatenate([s.rows, np.zeros_like(s.rows[:, :1])], axis=1)
    rows[7::RARE, -1] = height
    column = torch.zeros(s.recipe.latents)
    column[latent] = 1
    encode, decode = _encoder(s.vae), s.vae.decode

    def encoded(x: Tensor) -> Posterior:
        own = encode(x[..., :-1])
        uses = x[..., -1:] > height / 2
        idle = 1 - column
        mean = own.mean * idle + torch.where(uses, AT * column, torch.zeros_like(own.mean))
        std = own.std * idle + torch.where(uses, sharp * column, column.expand_as(own.std))
        return Posterior(mean, std)

    def decoded(z: Tensor) -> Tensor:
        ramp = slope * (z[..., latent : latent + 1] - FROM).clamp_min(0)
        return torch.cat([decode(z * (1 - column)), ramp], dim=-1)

    shape = (s.vae.input_shape[0] + 1,)
    vae = replace(s.vae, encode=encoded, decode=decoded, decode_logits=None, input_shape=shape)
    return replace(s, vae=vae, rows=rows)


def _idle(count: int) -> Fits:
    return lambda _recipe, entry: sum(rate < USED / 5 for rate in entry["rates"]) >= count


def _rare_fits(recipe: Recipe, entry: dict[str, Any]) -> bool:
    return _tables(recipe, entry) and recipe.loss == "sse" and _idle(1)(recipe, entry)


# --------------------------------------------------------------------------- random


def _sampled(p: Posterior) -> Posterior:
    return Posterior(p.mean + p.std * torch.randn_like(p.std), p.std)


def _dropout(s: Subject) -> Subject:
    encode = _encoder(s.vae)
    return replace(
        s, vae=replace(s.vae, encode=lambda x: encode(functional.dropout(x, 0.2, training=True)))
    )


def _noisy_decoder(s: Subject) -> Subject:
    return giving(s, lambda x: x + 0.05 * torch.randn_like(x))


def _of_the_batch(p: Posterior) -> Posterior:
    return Posterior(p.mean - p.mean.mean(0, keepdim=True), p.std)


# --------------------------------------------------------------------------- the list


def _list() -> list[Deformation]:
    return [
        *_declared(),
        *_data(),
        *_reading(),
        *_fit(),
        *_odd_latents(),
        *_random(),
    ]


def _loss(*names: str, unit: bool = False) -> Fits:
    def fits(recipe: Recipe, entry: dict[str, Any]) -> bool:
        bounded = recipe.output == "sigmoid" or not unit
        return recipe.loss in names and bounded and recipe.net != "affine"

    return fits


def _declared() -> list[Deformation]:
    """Another beta or another metric; where the two cannot be told apart either is right."""
    found = [
        Deformation(f"beta x {f}", "declared beta", frozenset({"beta"}), beta_times(f))
        for f in (0.1, 0.5, 0.8, 1.25, 2.0, 10.0)
    ]
    # pairs whose betas lie far apart: bce against l1 on images do not
    pairs: list[tuple[str, Fits]] = [
        ("sse for bce", _loss("bce")),
        ("bce for sse", _loss("sse", unit=True)),
        ("l1 for sse", _loss("sse")),
        ("sse for l1", _loss("l1")),
        ("sse for ssim", _loss("ssim")),
        ("l2 for sse", _loss("sse")),
        ("ssim for sse", lambda r, e: r.data in {"mnist", "fashion"} and _loss("sse")(r, e)),
    ]
    causes = frozenset({"metric"})
    for name, fits in pairs:
        spec = name.partition(" ")[0]
        found.append(Deformation(name, "declared metric", causes, metric_is(spec), fits))
    units = frozenset({"metric", "beta"})
    for name, spec, of in (
        ("sum for mean", "sse", "mse"),
        ("mean for sum", "mse", "sse"),
        ("sse for a likelihood", "sse", "gaussian"),
        ("a unit likelihood for sse", "gaussian", "sse"),
    ):
        found.append(Deformation(name, "declared metric", units, metric_is(spec), _loss(of)))
    return found


def _data() -> list[Deformation]:
    wrong: list[tuple[str, Callable[[Subject], np.ndarray], Fits]] = [
        ("another set", another_set, lambda r, _e: r.data in OTHER),
        ("inverted", lambda s: 1 - s.rows, _images),
        ("0..255 for 0..1", lambda s: s.rows * 255, _images),
        ("0..1 for 0..255", lambda s: s.rows / 255, _images),
        ("scaled by 0.5", lambda s: s.rows * 0.5, _any),
        ("scaled by 1.3", lambda s: s.rows * 1.3, _any),
        ("shifted", lambda s: s.rows + s.rows.std(), _tables),
        ("brightened", lambda s: s.rows + 0.2, _images),
        ("moved by two pixels", lambda s: np.roll(s.rows, 2, axis=2), _images),
        ("-1..1 for 0..1", lambda s: 2 * s.rows - 1, _images),
        (
            "columns standardised",
            lambda s: (s.rows - s.rows.mean(0)) / s.rows.std(0),
            lambda r, e: _tables(r, e) and r.data != "thyroid",
        ),
        ("axes exchanged", lambda s: s.rows.swapaxes(1, 2), _images),
        ("columns reversed", lambda s: s.rows[:, ::-1], _tables),
        ("noise added", _noisy, _any),
        ("one class only", _one_class, _images),
        ("padded, not resized", _padded, _images),
    ]
    cause = frozenset({"data"})
    return [Deformation(name, "data", cause, rows_are(f), fits) for name, f, fits in wrong]


def _reading() -> list[Deformation]:
    encoder, decoder = "reading of the encoder", "reading of the decoder"
    head, read = frozenset({"head"}), frozenset({"decoder"})
    squared = encoding(lambda p: Posterior(p.mean, p.std.square()))
    rooted = encoding(lambda p: Posterior(p.mean, p.std.sqrt()))
    return [
        Deformation("log variance as log deviation", encoder, head, squared, _head("logvar")),
        Deformation("log deviation as log variance", encoder, head, rooted, _head("logstd")),
        Deformation(
            "softplus for exp", encoder, head, _softplus_for_exp, _head("logvar", "logstd")
        ),
        Deformation("heads swapped", encoder, head, _heads_swapped, _head("logvar")),
        Deformation("interleaved for halves", encoder, head, _interleaved, _head("logvar")),
        Deformation("another activation", decoder, read, _other_activation, _activated),
        Deformation("no output activation", decoder, read, _without_output, _sigmoid),
        Deformation("output activation twice", decoder, read, _sigmoid_twice, _sigmoid),
        Deformation(
            "batch norm in training mode", decoder, read | {"random"}, _training_norm,
            models=("digits-bn-bce-1", "fashion-bn-sse-0.5", "toy-bn-sse-0.1"),
        ),
        Deformation("a layer's bias zeroed", decoder, read, _zeroed_bias, _activated),
    ]  # fmt: skip


def _fit() -> list[Deformation]:
    group, cause = "fit of the two", frozenset({"fit"})
    found = [
        Deformation("latents permuted", group, cause, _permuted, _several),
        Deformation("decoder rotated", group, cause, rotated_decoder, _several),
        Deformation("both rotated", group, frozenset({"rotation"}), rotated_both, _several),
    ]
    for name, factor in (
        ("column zeroed", 0.0),
        ("column x 0.5", 0.5),
        ("column x 3", 3.0),
        ("column's sign flipped", -1.0),
    ):
        found.append(Deformation(name, group, cause, column_times(factor), _dense))
    found.append(
        Deformation(
            "encoder of another seed", group, cause, _other_encoder,
            models=("toy-sse-0.1", "digits-bce-1", "spiral-sse-0.1"),
        )
    )  # fmt: skip
    return found


def _odd_latents() -> list[Deformation]:
    group = "idle and over-sharp"
    return [
        Deformation(
            "two idle at sigma^2 = 0.5", group, frozenset({"idle", "objective", "fit"}),
            _idle_sigma, _idle(2), harmless=True,
        ),
        Deformation(
            "one sigma x 0.001", group, frozenset({"fit", "head", "objective"}), _sharp, _dense
        ),
        Deformation(
            "used by one row in a thousand", group, frozenset(), rare, _rare_fits, harmless=True
        ),
    ]  # fmt: skip


def _random() -> list[Deformation]:
    cause = frozenset({"random"})
    return [
        Deformation("sampled z as mean", "random", cause, encoding(_sampled)),
        Deformation("dropout on", "random", cause, _dropout),
        Deformation("noise in the decoder", "random", cause, _noisy_decoder),
        Deformation("dependence on the batch", "random", cause, encoding(_of_the_batch)),
    ]


DEFORMATIONS: list[Deformation] = _list()
