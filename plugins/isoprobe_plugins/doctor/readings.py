"""Try every plausible reading of weights on data, and rank them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.declared.declaration import parse_declaration
from isoprobe_plugins.adapters.weights.named import fill_layers
from isoprobe_plugins.doctor.beyond import spoken_form
from isoprobe_plugins.doctor.plan import ACTIVATIONS, SAME, Choices, Plan
from isoprobe_plugins.doctor.sequences import SequencePlan
from isoprobe_plugins.doctor.trying import MANY, PAIRS, Tried, attempt, squeezed, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from isoprobe.contracts import Metric, Networks

SomePlan = Plan | SequencePlan

#: forms of the scale that are tried, the most usual first
FORMS = ("logvar", "logstd", "softplus-std", "softplus-variance", "std", "variance")
OUTPUTS = ("sigmoid", "linear", "tanh")
#: rows of a first glimpse
GLIMPSE = 64
#: error of reconstructions, in variances of the data, above which nothing is told apart
NOTHING_EXPLAINED = 1.25
#: ways through a network that are followed at most, where any explains something
NEAREST = 3
#: rows on which readings are first compared
QUICK = 96
#: how much worse a few rows may find a reading that all rows are asked about
WORTH = 0.5
#: a reading whose reconstructions miss more than this times what the best misses is no rival
FAR = 1.6
#: explained variance below which no reading is recommended
FLOOR = 0.05
#: slope above which nothing was trained to it
STEEP = 0.6
#: by how much steeper a reading is no rival whatever its error
APART = 3
#: by how much steeper a reading may be that the head's name speaks for
SPOKEN = 1.4
#: by how much less steep the less usual of two near readings has to be
SLIGHT = 0.02
#: the same where no reading is near its optimum
CUT_SHORT = 0.15
#: activations that few draws do not tell apart
LEAKY = ("relu", {"leaky_relu": 0.01})
#: products that a try on all rows may take, and one by many draws
ALL_ROWS, MANY_DRAWS = 1e8, 3e8
#: readings that are tried by many draws
CLOSE = 5
#: products a row of a network on which many combinations are tried
LIGHT = 1e5
#: others that are
TRIED_AGAIN = 12
#: choices that are tried by themselves
_ALONE = ("pool", "resize", "groups", "last", "recurrent", "joined", "levels", "clamp")
#: rounds over the choices
ROUNDS = 3


@dataclass(frozen=True)
class Reading:
    """One way to read the weights, and how the data bears it out.

    Attributes:
        plan: the way through the network.
        choices: what was chosen where the weights leave it open.
        metric: spec of the loss under which its slope is least.
        tried: what the data says of it.
    """

    plan: SomePlan
    choices: Choices
    metric: str
    tried: Tried

    @property
    def fields(self) -> dict[str, Any]:
        """The declaration."""
        return self.plan.fields(self.choices)


def _work(tensors: Mapping[str, Tensor], x: Tensor) -> float:
    """About how many products one row takes."""
    convolved = sum(t.numel() for t in tensors.values() if t.ndim > 2)
    dense = sum(t.numel() for t in tensors.values() if t.ndim == 2)
    return float(dense + convolved * max(x[0].numel() // 4, 1) + 1)


class Bench:
    """Tries readings on data, each once.

    Args:
        tensors: of the file, by name.
        x: inputs, ``(B, *input_shape)``.
        metrics: that may be the loss'.
        labels: of the rows, ``(B,)``, where there are any.
        advance: told of every reading that is tried.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        metrics: Sequence[Metric],
        labels: Tensor | None = None,
        advance: Callable[[int], object] = int,
    ) -> None:
        self.tensors, self.metrics, self._advance = tensors, tuple(metrics), advance
        each = _work(tensors, x)
        self.x = x[: max(int(ALL_ROWS / each), QUICK)]
        self.labels = labels
        self.many = int(min(max(MANY_DRAWS / each / len(self.x), PAIRS), MANY))
        self.light = each < LIGHT
        self._known: dict[tuple[str, int, int], dict[str, Tried]] = {}
        self._missed: dict[str, float] = {}

    def tried(
        self, plan: SomePlan, choices: Choices, rows: int, pairs: int = PAIRS
    ) -> dict[str, Tried]:
        """Return what data says of choices, by metric; empty where they give no numbers."""
        fields = plan.fields(choices)  # many choices come to the same network
        key = (repr(fields), rows, pairs)
        if key not in self._known:
            self._known[key] = self._attempt(fields, rows, pairs)
            self._advance(1)
        return self._known[key]

    def _attempt(self, fields: Mapping[str, Any], rows: int, pairs: int) -> dict[str, Tried]:
        try:
            networks = build({**fields, "output": "linear"}, self.tensors)
            x = fitted(self.x[:rows], tuple(fields["input_shape"]))
            metrics = self.metrics
            if "likelihood" in fields:
                metrics = (installed().metric(fields["likelihood"]["metric"]),)
            return attempt(
                networks, fields["output"], metrics, x, told(networks, x, self.labels),
                errors=rows == len(self.x), pairs=pairs,
            )  # fmt: skip
        except (IsoprobeError, RuntimeError):
            return {}

    def missed(self, plan: SomePlan, choices: Choices) -> float:
        """Return the squared error of reconstructions of a few rows at the mean."""
        fields = plan.fields(choices)
        key = repr(fields)
        if key not in self._missed:
            self._missed[key] = self._miss(fields)
        return self._missed[key]

    def _miss(self, fields: Mapping[str, Any]) -> float:
        try:
            networks = build({**fields, "output": "linear"}, self.tensors)
            x = fitted(self.x[:GLIMPSE], tuple(fields["input_shape"]))
            with torch.no_grad():
                c = told(networks, x, self.labels)
                raw = networks.decoder(networks.encoder(x, *c)[0].flatten(1), *c)
                value = float(((squeezed(raw, fields["output"]) - x) ** 2).mean())
        except (IsoprobeError, RuntimeError):
            return math.inf
        return value if math.isfinite(value) else math.inf

    def best(self, plan: SomePlan, choices: Choices, rows: int) -> tuple[str, Tried] | None:
        """Return the metric under which choices have the least slope."""
        every = self.tried(plan, choices, rows)
        if not every:
            return None
        return min(every.items(), key=lambda item: item[1].slope)


def fitted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring rows into the shape that a network takes, channels moved where they stand last."""
    if tuple(x.shape[1:]) == shape:
        return x
    if x.ndim == len(shape) + 1 and (x.shape[-1], *x.shape[1:-1]) == shape:
        return x.movedim(-1, 1)
    return x.reshape(len(x), *shape)


def build(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Networks:
    """Build the networks of a declaration and fill them; tensors of no layer are left out."""
    declaration = parse_declaration(fields, "doctor")
    config = declaration.config(tensors, "doctor")
    networks = fill_layers(config, tensors, "doctor", strict=False)
    networks.encoder.eval()
    networks.decoder.eval()
    return networks


def metrics_for(x: Tensor, asked: Metric | None) -> tuple[Metric, ...]:
    """Return what may be the loss' metric for data.

    Args:
        x: inputs.
        asked: the one the user names; None for those that are usual.
    """
    if asked is not None:
        return (asked,)
    names = ["sse"]
    if float(x.min()) >= 0 and float(x.max()) <= 1:
        names.insert(0, "bce")
    return tuple(installed().metric(name) for name in names)


def _cost(tried: Tried) -> float:
    """What is made least: the slope, and what reconstructions at the mean miss."""
    missed = max(1 - tried.at_mean, 1e-3)
    return math.log(max(tried.slope, 1e-4)) + 0.75 * math.log(missed)


def diagnose(
    plans: Sequence[SomePlan],
    tensors: Mapping[str, Tensor],
    x: Tensor,
    metric: Metric | None = None,
    given: Mapping[str, Any] | None = None,
    labels: Tensor | None = None,
    advance: Callable[[int], object] = int,
) -> list[Reading]:
    """Rank the plausible readings of weights by what data says.

    Args:
        plans: ways through the network.
        tensors: of the file, by name.
        x: inputs, ``(B, ...)``, in the model's range.
        metric: the loss' where it is known.
        given: choices that the user or the file tells.
        labels: of the rows, ``(B,)``, where there are any.
        advance: told of every reading that is tried.

    Returns:
        Readings; the first is the most usual of those that no other beats by more than its error,
        the others follow by how well they fit.

    Raises:
        CheckpointError: when no reading gives finite reconstructions.
    """
    bench = Bench(tensors, x, metrics_for(x, metric), labels, advance)
    said = dict(given or {})
    starts = [
        _glimpsed(bench, plan, replace(plan.start(), **said), _open(bench, plan, said))
        for plan in plans
    ]
    seen = [(bench.missed(p, s), p, s) for p, s in zip(plans, starts, strict=True)]
    least = min((missed for missed, *_ in seen), default=math.inf)
    near = [s for s in seen if s[0] <= 1.3 * least and s[0] < math.inf]
    near = sorted(near, key=lambda s: s[0])[:NEAREST]
    if least > NOTHING_EXPLAINED * float(bench.x[:GLIMPSE].var(0, correction=0).mean()):
        # of readings that are all wrong none is worth a search
        near, said = near[:1], {**said, **vars(near[0][2])} if near else said
    found = [
        r for _, plan, start in near
        for first in _starts(bench, plan, start, _open(bench, plan, said))
        for r in _explored(bench, plan, first, _open(bench, plan, said))
    ]  # fmt: skip
    if not found:
        raise CheckpointError("no reading of these weights gives finite reconstructions")
    ordered = sorted(_near(found), key=lambda r: _cost(r.tried))
    fine = _finer(bench, _usual(ordered, plans), ordered, said)
    chosen = _finest(fine, plans)
    short = _cut_short(bench, chosen, said)
    if short:
        fine = [*short, *(r for r in fine if r.choices not in [s.choices for s in short])]
        chosen = _finest(short, plans)
    again = _as_finely(
        bench, chosen,
        [r for r in ordered if (r.choices, r.plan) not in [(f.choices, f.plan) for f in fine]],
    )  # fmt: skip
    return [chosen, *(r for r in fine if r is not chosen), *again]


def _finer(
    bench: Bench, usual: Reading, ordered: Sequence[Reading], said: Mapping[str, Any]
) -> list[Reading]:
    """Try what is not told apart by many draws, under every metric; the best first."""
    near = [usual, *(r for r in ordered if r.plan == usual.plan and not beats(ordered[0], r))]
    chosen = list({repr(r.fields): r.choices for r in near}.values())[:CLOSE]
    sides = (usual.choices.encoder, usual.choices.decoder)
    free = not {"encoder", "decoder"} & said.keys()
    if free and all(side in LEAKY for side in sides):  # which few draws do not tell apart
        chosen += [replace(usual.choices, encoder=act, decoder=act) for act in LEAKY]
    found = []
    for choices in {repr(usual.plan.fields(c)): c for c in chosen}.values():
        every = bench.tried(usual.plan, choices, len(bench.x), bench.many)
        found += [Reading(usual.plan, choices, name, tried) for name, tried in every.items()]
    return sorted(found, key=lambda r: _cost(r.tried))


def _cut_short(bench: Bench, chosen: Reading, said: Mapping[str, Any]) -> list[Reading]:
    """Where no reading is near its optimum: activations that are stillest, and best at their beta.

    A large beta leaves reconstructions at the mean of no weight, so that a wrong activation may
    make them better. What was trained at its beta has the least loss at that beta.

    Returns:
        The readings, the best first; none where nothing is clearly stiller than the one in hand.
    """
    options = _open(bench, chosen.plan, said)
    if chosen.tried.slope <= STEEP or chosen.tried.at_mean < FLOOR or not bench.light:
        return []
    if not {"encoder", "decoder"} <= options.keys():
        return []
    spoken = spoken_form(chosen.plan.split.heads[-1].place)
    forms = {chosen.choices.form, *(f for f in options.get("form", ()) if f == spoken)}
    firsts = {repr(f): f for f in (SAME, chosen.choices.first) if f in options.get("first", (f,))}
    grid = [
        replace(chosen.choices, encoder=encoder, decoder=decoder, form=form, first=first)
        for encoder in ACTIVATIONS[:7] for decoder in ACTIVATIONS[:7] for form in sorted(forms)
        for first in firsts.values()
    ]  # fmt: skip
    every = [
        Reading(chosen.plan, choices, chosen.metric, tried[chosen.metric])
        for choices in {repr(chosen.plan.fields(c)): c for c in reversed(grid)}.values()
        if chosen.metric in (tried := bench.tried(chosen.plan, choices, len(bench.x)))
    ]
    worth = {r.choices.key(): math.log(max(r.tried.slope, 1e-4)) + _regret(r, every) for r in every}
    ordered = sorted(every, key=lambda r: worth[r.choices.key()])[:CLOSE]
    if not ordered or ordered[0].tried.slope > (1 - CUT_SHORT / 2) * chosen.tried.slope:
        return []
    return ordered


def _regret(one: Reading, others: Sequence[Reading]) -> float:
    """How many nats a reading's loss at its own beta is above the least of others there."""
    beta = one.tried.beta
    if not beta > 0:
        return math.inf
    loss = one.tried.distortion + beta * one.tried.kl
    return max(loss - r.tried.distortion - beta * r.tried.kl for r in others) / beta


def _as_finely(bench: Bench, chosen: Reading, others: Sequence[Reading]) -> list[Reading]:
    """Give rivals that few draws leave the draws that the chosen reading had, nearest first."""
    left = TRIED_AGAIN
    found = []
    for reading in others:
        again = reading
        if left and not beats(chosen, reading):
            left -= 1
            every = bench.tried(reading.plan, reading.choices, len(bench.x), bench.many)
            again = replace(reading, tried=every.get(reading.metric, reading.tried))
        found.append(again)
    return found


def _finest(fine: Sequence[Reading], plans: Sequence[SomePlan]) -> Reading:
    chosen = _usual(fine, plans)
    sides = (chosen.choices.encoder, chosen.choices.decoder)
    if any(side not in LEAKY for side in sides):
        return chosen
    # a training that was cut short leaves more slope than a leak of a hundredth makes
    slight = SLIGHT if chosen.tried.slope <= STEEP / 2 else CUT_SHORT
    alike = [
        r for r in fine
        if r.metric == chosen.metric and r.choices.encoder == r.choices.decoder
        and replace(r.choices, encoder=None, decoder=None)
        == replace(chosen.choices, encoder=None, decoder=None)
    ]  # fmt: skip
    return min(alike, key=lambda r: r.tried.slope * (1 + slight * (r.choices.encoder != "relu")),
               default=chosen)  # fmt: skip


def _near(found: Sequence[Reading]) -> list[Reading]:
    """Readings whose reconstructions do not miss far more than the best's."""
    least = min(1 - r.tried.at_mean for r in found)
    return [r for r in found if 1 - r.tried.at_mean <= FAR * max(least, 1e-3) + 0.02]


def _open(bench: Bench, plan: SomePlan, said: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What is left to choose."""
    return {k: v for k, v in {**plan.options(), **_heads(plan, bench)}.items() if k not in said}


def _explored(
    bench: Bench, plan: SomePlan, current: Choices, options: Mapping[str, Sequence[Any]]
) -> list[Reading]:
    """Follow choices downhill, then look around the end."""
    rows = min(QUICK, len(bench.x))
    least = _value(bench, plan, current, rows)
    for _ in range(ROUNDS):
        before = current
        for name, values in options.items():
            for value in values:
                choices = replace(current, **{name: value})
                if bench.missed(plan, choices) > FAR * bench.missed(plan, current):
                    continue
                cost = _value(bench, plan, choices, rows)
                if cost < least - 1e-9:
                    current, least = choices, cost
        if current == before:
            break
    if least == math.inf:
        return []
    found: dict[tuple[str, str], Reading] = {}
    for _ in range(ROUNDS):
        far = FAR * bench.missed(plan, current)
        near = [
            c for c in _around(current, options)
            if c == current
            or (bench.missed(plan, c) <= far and _value(bench, plan, c, rows) < least + WORTH)
        ]  # fmt: skip
        for reading in _judged(bench, plan, near):
            found[reading.choices.key(), reading.metric] = reading
        if not found:
            return []
        ordered = sorted(_near(list(found.values())), key=lambda r: _cost(r.tried))
        chosen = _usual(ordered, [plan]).choices
        if chosen == current:
            break
        current = chosen
    return list(found.values())


def _glimpsed(
    bench: Bench, plan: SomePlan, start: Choices, options: Mapping[str, Sequence[Any]]
) -> Choices:
    """Choices that reconstruct best at the mean, from where the slope is followed down.

    What hides each other is chosen together: both activations with the first one, the output and
    the layout; both geometries.

    Returns:
        The choices.
    """

    def either(*names: str) -> list[dict[str, Any]]:
        known = [n for n in names if n in options]
        values = itertools.product(*(options[n] for n in known))
        return [dict(zip(known, each, strict=True)) for each in values]

    firsts = [f for f in options.get("first", (start.first,)) if f in (SAME, None)]
    acts = [
        {**more, **({"encoder": act} if "encoder" in options else {}),
         **({"decoder": act} if "decoder" in options else {}), "first": first}
        for act in ACTIVATIONS[:7] for first in firsts for more in either("layout", "output")
    ]  # fmt: skip
    moves = [acts, either("way_in", "way_out"), either("blocks", "order")]
    moves += [either(name) for name in _ALONE]
    current, least = start, bench.missed(plan, start)
    for _ in range(2):
        for move in moves:
            for change in move:
                choices = replace(current, **change)
                missed = bench.missed(plan, choices)
                if missed < least:
                    current, least = choices, missed
    return current


def _starts(
    bench: Bench, plan: SomePlan, glimpsed: Choices, options: Mapping[str, Sequence[Any]]
) -> list[Choices]:
    """Choices from where the slope is followed down.

    What reconstructs best at the mean may lie beyond a ridge from the truth, so activations and
    the scale's form are tried together as well, the same activation on both sides.

    Returns:
        The choices at hand, and the best of each form that is not far worse than any.
    """
    rows = min(QUICK, len(bench.x))
    acts = [a for a in ACTIVATIONS[:7] if {"encoder", "decoder"} <= options.keys()]
    forms = options.get("form", (glimpsed.form,)) if bench.light else (glimpsed.form,)
    firsts = [f for f in options.get("first", (glimpsed.first,)) if f in (SAME, None)]
    grid = [
        replace(glimpsed, encoder=act, decoder=act, first=first, form=form)
        for act in acts for form in forms for first in firsts
    ]  # fmt: skip
    far = FAR * bench.missed(plan, glimpsed)
    near = [c for c in grid if bench.missed(plan, c) <= far]
    costs = {c.key(): _value(bench, plan, c, rows) for c in near}
    best: dict[str, Choices] = {}
    for choices in sorted(near, key=lambda c: costs[c.key()]):
        best.setdefault(choices.form, choices)  # a scale's form hides which activation is right
    first = list(best.values())[:2]
    least = min(costs.values(), default=0.0)
    found = [c for c in first if costs[c.key()] < least + WORTH]
    return list({c.key(): c for c in (glimpsed, *found)}.values())


def _around(center: Choices, options: Mapping[str, Sequence[Any]]) -> list[Choices]:
    """A choice and those that differ from it in one."""
    near = [center]
    for name, values in options.items():
        near += [replace(center, **{name: v}) for v in values if v != getattr(center, name)]
    return near


def _usual(ordered: Sequence[Reading], plans: Sequence[SomePlan]) -> Reading:
    """The most usual reading that the best does not beat by more than its error."""
    best = ordered[0]
    rivals = [r for r in ordered if not beats(best, r)]
    return min(rivals, key=lambda r: (plans.index(r.plan), oddness(r), _cost(r.tried)))


def beats(one: Reading, other: Reading) -> bool:
    """Say whether a reading fits better than another by more than the error of both.

    Args:
        one: that fits better.
        other: the other.

    Returns:
        Whether it does.
    """
    if _speaks(one) != _speaks(other):
        worse = 1 / SPOKEN if _speaks(one) else SPOKEN
        return other.tried.slope > worse * one.tried.slope + 0.01
    if one.metric != other.metric:
        return other.tried.slope > 1.15 * one.tried.slope + 0.01
    pairs = [b - a for a, b in zip(one.tried.blocks, other.tried.blocks, strict=True)]
    n = len(pairs)
    middle = sum(pairs) / n if n else 0.0
    error = math.sqrt((n - 1) / n * sum((p - middle) ** 2 for p in pairs)) if n else 0.0
    gap = other.tried.slope - one.tried.slope
    if other.tried.slope > APART * one.tried.slope + 0.05:
        return True
    missed = (1 - other.tried.at_mean) / max(1 - one.tried.at_mean, 1e-6)
    return gap > 2 * error + 0.03 * one.tried.slope or missed > 1.25


def _speaks(reading: Reading) -> bool:
    """Whether the form of the scale is the one that the head's name says."""
    heads = reading.plan.split.heads
    return len(heads) == 2 and reading.choices.form == spoken_form(heads[-1].place)


def oddness(reading: Reading) -> int:
    """Say how far from the usual choices, and from what names say, a reading is.

    Args:
        reading: one reading.

    Returns:
        The sum of the places of its choices among the usual ones, 0 for the most usual of all.
    """
    plan = reading.plan
    options = {**plan.options(), "form": _forms(plan), "layout": plan.layouts()}
    places = {
        name: values.index(getattr(reading.choices, name))
        if getattr(reading.choices, name) in values else len(values)
        for name, values in options.items()
    }  # fmt: skip
    return sum(min(place, 1) if name == "clamp" else place for name, place in places.items())


def _forms(plan: SomePlan) -> tuple[str, ...]:
    """Forms of the scale, that first which the head's name speaks of."""
    name = plan.split.heads[-1].place
    if plan.beyond.counts:
        return ("exp-variance", *FORMS)
    spoken = spoken_form(name)
    return tuple(sorted(FORMS, key=lambda form: form != spoken))


def _heads(plan: SomePlan, bench: Bench) -> dict[str, tuple[Any, ...]]:
    x = bench.x
    inside = float(x.min()) >= -1e-6 and float(x.max()) <= 1 + 1e-6
    signed = float(x.min()) >= -1 - 1e-6 and float(x.max()) <= 1 + 1e-6
    outputs = OUTPUTS if inside else ("linear", "tanh") if signed else ("linear",)
    if plan.beyond.likelihood:
        outputs = ("linear",)
    return {"layout": plan.layouts(), "form": _forms(plan), "output": outputs}


def _value(bench: Bench, plan: SomePlan, choices: Choices, rows: int) -> float:
    best = bench.best(plan, choices, rows)
    return math.inf if best is None else _cost(best[1])


def _judged(bench: Bench, plan: SomePlan, every: Sequence[Choices]) -> list[Reading]:
    """Readings on all rows."""
    return [
        Reading(plan, choices, name, tried)
        for choices in {repr(plan.fields(c)): c for c in every}.values()
        for name, tried in bench.tried(plan, choices, len(bench.x)).items()
    ]
