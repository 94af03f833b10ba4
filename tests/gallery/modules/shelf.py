"""Keep the list of live modules: how each is made, and what is right about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tests.gallery import own
from tests.gallery.own import Own

STEPS = 700


@dataclass(frozen=True)
class Made:
    """A trained module as it is handed over, the rows beside it, and its own reading."""

    module: nn.Module
    rows: Tensor
    reading: Own


@dataclass(frozen=True)
class Entry:
    """One module: `make` trains it for a second or two.

    `refused`: what the refusal must mention (of each group one word), where a result is wrong.
    `or_refused`: the same, where a refusal is as right as a result.
    """

    name: str
    words: str
    make: Callable[[], Made]
    metric: str
    refused: tuple[tuple[str, ...], ...] = ()
    or_refused: tuple[tuple[str, ...], ...] = ()
    tolerance: float = 2e-3
    wrong: str = ""


MODULES: dict[str, Entry] = {}


def module(words: str, metric: str = "bce", **facts: object) -> Callable:
    """Put a function that makes a module on the shelf, under the function's name."""

    def put(make: Callable[[], Made]) -> Callable[[], Made]:
        def seeded() -> Made:
            own.seed(make.__name__)
            return make()

        MODULES[make.__name__] = Entry(make.__name__, words, seeded, metric, **facts)
        return make

    return put


def trained(
    network: nn.Module, posterior: Callable, decode: Callable, rows: Tensor, **options: object
) -> Made:
    """Train a network by its own reading: bce on digits in [0, 1], beta 1, unless said."""
    made = ready(network, posterior, decode, rows, **options)
    own.fit(network, made.reading, steps=STEPS, rate=6e-3)
    return made


def ready(
    network: nn.Module, posterior: Callable, decode: Callable, rows: Tensor, **options: object
) -> Made:
    """Return a network that is trained already, with its reading."""
    facts = {"distortion": own.bce, "metric": "bce", "beta": 1.0, **options}
    network.eval()
    reading = Own(lambda x, _c: posterior(x), lambda z, _c: decode(z), x=rows, **facts)
    return Made(network, rows, reading)
