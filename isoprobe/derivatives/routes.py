"""Find which way to a decoder's derivatives works for a module: tried on two samples, fast first.

Operators without a forward derivative (fused attention, recurrent cells of oneDNN, old-style
``autograd.Function``) are why there is more than one. A way is taken when it runs and agrees with
reverse mode: u'(J v) = v'(J' u) for random u and v.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch.func import jvp, vmap

from isoprobe.derivatives.tangents import push_keeping, push_stacked
from isoprobe.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

Decoder = Callable[["Tensor"], "Tensor"]
Push = Callable[[Decoder, "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]
Way = Callable[[Decoder, "Tensor", Iterator["Tensor"]], Iterator[tuple["Tensor", "Tensor"]]]


@dataclass(frozen=True)
class Route:
    """One way to J v.

    Attributes:
        name: for the record.
        method: ``(decode, z (B, n), directions (C, B or 1, n))`` to output ``(B, *shape)`` and
            tangents ``(C, B, *shape)``.
        plain_attention: keep off the fused attention kernels.
        plain_kernels: keep off oneDNN.
        note: what the reader of a result should know; empty for the usual ways.
        all_columns: a shorter way to all columns, ``(decode, z, directions)`` to pairs of output
            and columns; see :mod:`isoprobe.derivatives.quicker`.
        length: of those columns, where it is not the output's: only their products are right.
        by_rows: they come from the rows, all at once.
    """

    name: str
    method: Push
    plain_attention: bool = False
    plain_kernels: bool = False
    note: str = ""
    all_columns: Way | None = None
    length: int | None = None
    by_rows: bool = False

    def columns(self, decode: Decoder, z: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Columns of the Jacobian in order, with the output, so many or more at once.

        Args:
            decode: the decoder.
            z: latents, ``(B, n)``.
            chunk: columns at once.

        Yields:
            Output ``(B, *shape)`` and the next columns, ``(C, B, *shape)`` or ``(C, B, length)``.
        """
        directions = _basis(z, chunk)
        with torch.no_grad(), self.kernels():
            if self.all_columns is not None:
                yield from self.all_columns(decode, z, directions)
                return
            for some in directions:
                yield self.method(decode, z, some)

    def push(self, decode: Decoder, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Output ``(B, *shape)`` and J v for ``directions (C, B or 1, n)``, ``(C, B, *shape)``."""
        with torch.no_grad(), self.kernels():
            return self.method(decode, z, directions)

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Choose kernels that can be differentiated, and that keep every digit of float32.

        Yields:
            Nothing.
        """
        with ExitStack() as stack:
            stack.enter_context(_without_tf32())
            if self.plain_attention:
                from torch.nn.attention import SDPBackend, sdpa_kernel

                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self.plain_kernels:
                stack.enter_context(_without_onednn())
            yield


def _basis(z: Tensor, chunk: int) -> Iterator[Tensor]:
    """Unit vectors in chunks ``(C, 1, n)``, never all n of them at once.

    Yields:
        The next chunk.
    """
    n = z.shape[1]
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        rows = z.new_zeros(stop - start, 1, n)
        rows[:, 0, start:stop].fill_diagonal_(1)
        yield rows


class _Precision:
    """Precision of a card's float32, a setting of the whole process, lent to several threads."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = Lock(), 0, [""]

    @staticmethod
    def parts() -> tuple[Any, ...]:
        """Where torch keeps it."""
        cudnn: Any = torch.backends.cudnn  # its parts are unknown to type checkers
        return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul

    def take(self) -> None:
        """Keep every digit from here on; the first to take it notes what was set."""
        with self.lock:
            if not self.users:
                self.before = [part.fp32_precision for part in self.parts()]
                for part in self.parts():
                    part.fp32_precision = "ieee"
            self.users += 1

    def give_back(self) -> None:
        """The last to give it back sets what was set."""
        with self.lock:
            self.users -= 1
            if not self.users:
                for part, precision in zip(self.parts(), self.before, strict=True):
                    part.fp32_precision = precision


_PRECISION = _Precision()


@contextmanager
def _without_tf32() -> Iterator[None]:
    # a card's matrix units round float32 to 10 bits; for convolutions torch lets them unless told
    _PRECISION.take()
    try:
        yield
    finally:
        _PRECISION.give_back()


@contextmanager
def _without_onednn() -> Iterator[None]:
    # torch.backends.mkldnn.flags sets TF32 along with it, which warns on a processor without it
    was, *_ = torch.backends.mkldnn.set_flags(  # type: ignore[no-untyped-call]
        _enabled=False, _fp32_precision=None
    )
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(  # type: ignore[no-untyped-call]
            _enabled=was, _fp32_precision=None
        )


def push_vmapped(decode: Decoder, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """All directions by vmap over one forward derivative; shapes as in :class:`Route`."""

    def push(direction: Tensor) -> tuple[Tensor, Tensor]:
        return _jvp(decode, z, direction)

    every = vmap(push, out_dims=(None, 0))  # type: ignore[arg-type]
    return every(directions.expand(-1, *z.shape))


def _jvp(decode: Decoder, z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    return jvp(decode, (z,), (direction,))  # type: ignore[return-value]


def push_one_by_one(decode: Decoder, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """One forward derivative after the other; shapes as in :class:`Route`."""
    pushed = [_jvp(decode, z, direction) for direction in directions.expand(-1, *z.shape)]
    return pushed[0][0], torch.stack([tangent for _, tangent in pushed])


def push_twice_reversed(decode: Decoder, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """J v as the derivative of u -> J' u, by reverse mode alone; shapes as in :class:`Route`."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        output = decode(leaf)
        cotangent = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, leaf, cotangent, create_graph=True)
        tangents = [
            torch.autograd.grad(pulled, cotangent, direction, retain_graph=True)[0]
            for direction in directions.expand(-1, *z.shape)
        ]
    return output.detach(), torch.stack(tangents)


def push_by_rows(decode: Decoder, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """J v from the rows of J, one backward pass for each output; shapes as in :class:`Route`."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        output = decode(leaf)
        flat = output.flatten(1)
        products = []
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), leaf, retain_graph=True)
            products.append((directions * row).sum(dim=2))
    return output.detach(), torch.stack(products, dim=2).reshape(-1, *output.shape)


_PLAIN = "attention and recurrent layers run on plain kernels, since the fused ones have no"
_NOTE_KERNELS = f"{_PLAIN} forward derivative"
_NOTE_LOOP = "decoder derivatives taken one direction at a time: an operation cannot be batched"
_NOTE_TWICE = (
    "decoder derivatives taken by reverse mode twice: an operation has no forward derivative"
)
_NOTE_ROWS = (
    "decoder derivatives taken by one backward pass for each output, which is slow: an operation"
    " can be differentiated only once, and only backwards"
)

#: in the order of preference
ROUTES = (
    Route("stacked", push_stacked),
    Route("stacked-keeping", push_keeping),
    Route("vmap", push_vmapped),
    Route("stacked-plain-attention", push_keeping, True, False, _NOTE_KERNELS),
    Route("vmap-plain-attention", push_vmapped, True, False, _NOTE_KERNELS),
    Route("stacked-plain-kernels", push_keeping, True, True, _NOTE_KERNELS),
    Route("vmap-plain-kernels", push_vmapped, True, True, _NOTE_KERNELS),
    Route("loop", push_one_by_one, note=_NOTE_LOOP),
    Route("loop-plain-kernels", push_one_by_one, True, True, f"{_NOTE_LOOP}; {_NOTE_KERNELS}"),
    Route("reverse-twice", push_twice_reversed, note=_NOTE_TWICE),
    Route("rows", push_by_rows, note=_NOTE_ROWS),
)


def named_route(name: str) -> Route:
    """Return the route of a name, as :func:`choose_route` found it before.

    Raises:
        OptionError: for a name that no route has.
    """
    for route in ROUTES:
        if route.name == name:
            return route
    known = ", ".join(route.name for route in ROUTES)
    raise OptionError(f"there is no route '{name}' to derivatives; there are {known}")


def choose_route(decode: Decoder, z: Tensor) -> Route:
    """The first route that works for a decoder.

    Args:
        decode: the decoder in the space the metric uses.
        z: latents to try it on, ``(B, n)``; two are enough.

    Returns:
        A route whose products agree with reverse mode.

    Raises:
        CheckpointError: when none does.
    """
    generator = torch.Generator().manual_seed(0)
    directions = _random(generator, (2, *z.shape), z)
    reason = "no route agrees with reverse mode"
    for route in ROUTES:
        try:
            output, tangents = route.push(decode, z, directions)
            if _agrees(route, decode, z, directions, output, tangents):
                return route
        except Exception as error:  # a user's module may fail in any way: the next route is tried
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
    raise CheckpointError(
        "the decoder cannot be differentiated, and the pullback needs its derivatives "
        f"({reason}); use --pullback finite-difference."
    )


def _agrees(
    route: Route,
    decode: Decoder,
    z: Tensor,
    directions: Tensor,
    output: Tensor,
    tangents: Tensor,
) -> bool:
    """Whether u'(J v) = v'(J' u) for each of the directions, to rounding."""
    if tangents.shape != (len(directions), *output.shape) or not bool(tangents.isfinite().all()):
        return False
    cotangent = _random(torch.Generator().manual_seed(1), tuple(output.shape), output)
    with torch.enable_grad(), route.kernels():
        leaf = z.detach().requires_grad_()
        value = decode(leaf)
        (pulled,) = torch.autograd.grad((value * cotangent).sum(), leaf)
    forward = (tangents * cotangent).flatten(2).double().sum(2)
    backward = (directions * pulled).double().sum(2)
    size = (tangents * cotangent).flatten(2).double().square().sum(2).sqrt()
    rounding = 1e3 * torch.finfo(z.dtype).eps
    near = (forward - backward).abs() <= rounding * (size + backward.abs())
    same = torch.allclose(value, output, rtol=rounding, atol=rounding)
    return same and bool(near.all())


def _random(generator: torch.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)
