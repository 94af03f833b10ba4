"""Convolutions to few channels equal PyTorch's own, whatever their sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from isoprobe.derivatives import few_channels


@settings(deadline=None, max_examples=60)
@given(data=st.data(), transposed=st.booleans(), outs=st.integers(1, 3), more=st.integers(0, 1))
def test_they_equal_the_convolutions_of_torch(
    data: st.DataObject, transposed: bool, outs: int, more: int
) -> None:
    kernel = tuple(data.draw(st.integers(1, 4)) for _ in range(2))
    stride = tuple(data.draw(st.integers(1, 3)) for _ in range(2)) if transposed else (1, 1)
    padding = tuple(data.draw(st.integers(0, k - 1)) for k in kernel)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, bias = normal(5, 8, 6, 7), normal(outs)
    if transposed:
        extra = tuple(min(more, s - 1) for s in stride)
        func, weight, args = functional.conv_transpose2d, normal(8, outs, *kernel), (extra, 1, 1)
    else:
        func, weight, args = functional.conv2d, normal(outs, 8, *kernel), (1, 1)
    expected = func(x, weight, bias, stride, padding, *args)
    found = few_channels.convolve(func, x, weight, bias, stride, padding, *args)
    torch.testing.assert_close(found, expected)
    for images in (x[:0], x.contiguous(memory_format=torch.channels_last)):
        found = few_channels.convolve(func, images, weight, None, stride, padding, *args)
        torch.testing.assert_close(found, func(images, weight, None, stride, padding, *args))


def test_many_rows_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_channels, "_CACHE", 1)
    x, weight = torch.randn(5, 8, 4, 4), torch.randn(8, 3, 4, 4)
    found = few_channels.convolve(functional.conv_transpose2d, x, weight, None, 2, 1)
    expected = functional.conv_transpose2d(x, weight, None, 2, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("func", "shape", "args"),
    [
        (functional.conv2d, (3, 8, 3, 3), (2, 1)),
        (functional.conv2d, (3, 8, 3, 3), (1, "same")),
        (functional.conv2d, (3, 8, 3, 3), (1, 3)),
        (functional.conv2d, (3, 8, 3, 3), (1, 1, 2)),
        (functional.conv2d, (2, 4, 3, 3), (1, 1, 1, 2)),
        (functional.conv2d, (16, 8, 3, 3), (1, 1)),
        (functional.conv_transpose2d, (8, 3, 2, 2), (2, 0, 1)),
        (functional.conv_transpose2d, (8, 3, 3, 3), (2, 1, 1, 1, 2)),
    ],
)
def test_others_are_left_to_torch(func: object, shape: tuple[int, ...], args: tuple) -> None:
    assert callable(func)
    x, weight, seen = torch.randn(2, 8, 6, 6), torch.randn(shape), []

    def watched(*given: object) -> torch.Tensor:
        seen.append(given)
        return func(*given)

    assert few_channels._as_scatter(func, x, weight, args) is None
    found = few_channels.convolve(watched, x, weight, None, *args)
    assert torch.equal(found, func(x, weight, None, *args))
    assert len(seen) == 1
