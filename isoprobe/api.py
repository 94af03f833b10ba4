"""Offer the Python calls behind the commands: ``analyze``, ``load``, ``open``, ``compare`` ..."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isoprobe.contracts import DEFAULT_ANALYSES, Live
from isoprobe.errors import PluginError, ResultError
from isoprobe.registry.looking import look as inspect
from isoprobe.registry.lookup import installed
from isoprobe.results import reader
from isoprobe.run.merging import run_shards
from isoprobe.run.opening import load
from isoprobe.run.settings import RunSettings
from isoprobe.show.compare import Comparison
from isoprobe.show.compare import compare as compare_results
from isoprobe.show.report import compared_page, write
from isoprobe.show.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from isoprobe.contracts import VAE, Analysis, Metric

__all__ = [
    "analyze", "compare", "convert", "doctor", "inspect", "load", "open", "report", "wrap",
]  # fmt: skip


def analyze(
    model: VAE | Live | nn.Module | str | Path,
    data: Any = None,
    *,
    metric: str | Metric | None = None,
    beta: float | Literal["auto"] | None = None,
    analyses: Sequence[str | Analysis] = DEFAULT_ANALYSES,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
    allow_random: bool = False,
    samples: int | Literal["auto"] | None = "auto",
    tolerance: float | None = None,
    against: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    pullback: str = "exact",
    pairs: int = 2,
    expectation: str = "gaussian",
    seed: int = 0,
    no_rows: bool = False,
    resize: int | tuple[int, int] | None = None,
    pad: int | tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    condition: Any = None,
    memory: int = 1 << 30,
    threads: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
) -> Result:
    """Analyse a model: what it learned, which latents matter, whether it can be trusted.

    Args:
        model: the path of a checkpoint, or a model in memory: any ``nn.Module``, read by trying it
            on a few rows; what :func:`wrap` gives; or a :class:`VAE`. It is given back as it was.
        data: a data spec, an opened data set, or rows ``(N, ...)`` as people hold them: an array,
            tensor, list, data frame, torch Dataset or DataLoader ...; None takes the data set the
            checkpoint names, or else samples decoded from the prior.
        metric: spec or instance; None or ``auto`` takes the declared one, or else the one whose
            recovered beta is the one given.
        beta: KL weight in units of the metric; ``auto`` recovers it from the model; None takes
            the declared one where there is one and otherwise recovers it.
        analyses: names, specs or instances; ``+name`` runs one beside the default ones. What they
            build on is run too.
        adapter: name of the adapter for a path.
        options: of the adapter.
        trust: let code inside the checkpoint run, as for :func:`load`.
        allow_random: go on with a model that answers the same row differently, each time or beside
            other rows.
        samples: at most this many, spread evenly; None for all; ``auto`` for the first round number
            that gives beta, distortion and norms of used latents to within ``tolerance``, and for
            rates and importance at least 10,000 rows that go through the encoder alone.
        tolerance: relative standard error that is enough for ``auto``; when None 0.02, and 10,000
            samples at most.
        against: spec of a second data set; the result's group ``against`` says how its rate,
            distortion and ELBO differ, with errors: the generalisation gap of test and training.
        batch_size: samples at once; planned from ``memory`` when None.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        dtype: ``float32`` or ``float64``; the model's own when None.
        pullback: ``exact``, ``probe`` (at most five passes a sample: random columns, or random
            signs for very many latents) or ``finite-difference``.
        pairs: antithetic pairs of posterior draws a sample, for stationarity and E_z D.
        expectation: how E_z D is taken: ``gaussian`` draws, or ``two-point``, mu + sigma and
            mu - sigma (A.6).
        seed: of everything random.
        no_rows: leave single rows out of the result and its report: no columns of samples, no
            pictures of rows or their ids; no folders and no command line either.
        resize: images to this height and width.
        pad: images to this height and width with zeros; as the checkpoint says when None.
        scale: data values that stand for the ends of the model's input range.
        condition: what a conditional model is told of each row: a spec or rows, as many as there
            are, or a number for all; None for the data's labels, or what the model finds itself.
        memory: bytes that tangents may take at once.
        threads: processor threads, which change the last digits; as many as PyTorch takes when
            None. The caller's number is set again afterwards.
        out: result file; a temporary one when None.
        overwrite: replace an existing result.
        resume: go on with an unfinished result, of which the shards that are done are kept.
        progress: show a bar on stderr.
        command: the command line that asks for this, kept in the result; a call from Python has
            none.

    Returns:
        The result; its arrays are those of the file.

    Raises:
        IsoprobeError: whatever does not fit, in one line.
        ResultError: if the result cannot be written, or exists already.
    """
    given = locals()
    asked = RunSettings(**{f.name: given[f.name] for f in fields(RunSettings)})
    result = run_shards(
        model,
        data,
        asked,
        out=out,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        command=command,
    )
    if result is None:
        raise ResultError("another process took the working folder away; run it again")
    return result


def wrap(
    model: Any,
    *,
    encode: Callable[[Tensor], Any] | None = None,
    decode: Callable[[Tensor], Any] | None = None,
    head: str | None = None,
    layout: str | None = None,
    mean: str | None = None,
    scale: str | None = None,
    output: str | None = None,
    input_range: tuple[float, float] | None = None,
    beta: float | None = None,
    prior: Any = None,
) -> Live:
    """Say about a model in memory what trying it on rows cannot tell.

    Args:
        model: the module, whose parameters are used; lent for a run and given back as it was.
        encode: ``x (B, ...) -> (mean, scale)``; the model's own when None.
        decode: ``z (B, n) -> x_hat (B, ...)``; the model's own when None.
        head: form of the scale: ``logvar``, ``logstd``, ``std``, ``softplus-std`` ...
        layout: order within one output of 2n values: ``halves``, ``swapped``, ``interleaved``.
        mean: name or place of the output that is the mean, as ``"1"`` or ``"mu"``.
        scale: the same of the scale.
        output: what the decoder gives: ``values`` or ``logits``.
        input_range: lowest and highest value that the model was trained on.
        beta: KL weight in units of the metric.
        prior: p(z) where it is not N(0, I): a :class:`~isoprobe.contracts.Prior`, or a Gaussian or
            a mixture of Gaussians of ``torch.distributions``.

    Returns:
        What :func:`analyze` takes in place of the model.
    """
    shown = None if input_range is None else ",".join(f"{end:g}" for end in input_range)
    said = {
        "encode": encode,
        "decode": decode,
        "head": head,
        "layout": layout,
        "mean": mean,
        "scale": scale,
        "output": output,
        "input_range": shown,
        "beta": beta,
        "prior": prior,
    }
    return Live(model, {name: value for name, value in said.items() if value is not None})


def open(path: str | Path) -> Result:
    """Open a result file.

    Args:
        path: what ``analyze(..., out=path)`` wrote.

    Returns:
        The result, read when asked for.

    Raises:
        ResultError: if it is missing, unfinished, damaged, of a newer version, or not ours.
    """
    return Result.open(path)


def report(
    result: reader.Result | str | Path,
    path: str | Path,
    *,
    overwrite: bool = False,
    image_shape: Sequence[int] | None = None,
) -> Path:
    """Write a result as one offline HTML page.

    Args:
        result: open, or its file.
        path: the page.
        overwrite: replace an existing one.
        image_shape: as which flat inputs are drawn, ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``.

    Returns:
        The page's path.
    """
    with contextlib.ExitStack() as stack:
        opened = _opened(result, stack)
        if image_shape is not None:
            opened.image_shape = tuple(image_shape)
        return opened.report(path, overwrite=overwrite)


def compare(
    results: Sequence[reader.Result | str | Path] | Mapping[str, reader.Result | str | Path],
    *,
    html: str | Path | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Compare results with the first of them: spectra, verdicts, latents matched by what they do.

    Args:
        results: at least two, open or their files; analysed on the same data with
            ``"coordinates"`` so that latents can be matched. By name where the names of their
            files say little.
        html: write a page as well.
        overwrite: replace an existing page.

    Returns:
        The comparison; ``to_text()`` and ``to_json()`` put it into words and plain values.

    Raises:
        ResultError: for fewer than two results.
    """
    if len(results) < 2:
        raise ResultError(f"compare takes at least two results; found {len(results)}")
    names = list(results) if isinstance(results, Mapping) else None
    held = results.values() if isinstance(results, Mapping) else results
    with contextlib.ExitStack() as stack:
        opened = [_opened(result, stack) for result in held]
        compared = compare_results(opened, names)
        if html is not None:
            paths = [result.path for result in opened]
            write(compared_page(opened, compared), Path(html), overwrite=overwrite, inputs=paths)
        return compared


def doctor(
    model: str | Path,
    data: str,
    *,
    samples: int = 1024,
    resize: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    metric: str | None = None,
    pad: int | tuple[int, int] | None = None,
) -> Any:
    """Try every plausible reading of undeclared weights on data, and rank them.

    Args:
        model: file of weights.
        data: spec of data like the model's training data.
        samples: rows to try it on.
        resize: height and width to resize images to.
        scale: data values that stand for 0 and 1.
        metric: of the loss, where it is known.
        pad: height and width to pad images to with zeros.

    Returns:
        ``readings``, the best first, each with what was ``tried`` and, in ``fields``, what to
        declare; ``doubt``, why the first is not to be trusted, or nothing; ``notes``, what was
        taken as given; ``metric``, that of the loss where the data tells it.
    """
    return _function("doctor")(model, data, samples, resize, scale, metric, pad)


def convert(model: str | Path, out: str | Path, **asked: Any) -> Any:
    """Write a checkpoint as one safetensors file that describes itself.

    Args:
        model: the checkpoint.
        out: the file.
        **asked: ``adapter``, ``options``, ``metric``, ``beta``, ``latents`` (``all`` or ``used``,
            for which ``data``, ``resize`` and ``scale`` are), ``overwrite``, as for the command.

    Returns:
        ``path``, ``latents`` (how many) and ``says``, in words.
    """
    return _function("convert")(model, out, **asked)


def _opened(result: reader.Result | str | Path, stack: contextlib.ExitStack) -> Result:
    """The result as it is, or a file that is closed again with the stack."""
    if isinstance(result, reader.Result):
        return result if isinstance(result, Result) else Result.of(result)
    return stack.enter_context(Result.open(result))


def home_of(command: str, name: str) -> str:
    """Return the module of a public name that a plugin brings with one of its commands.

    Args:
        command: its name.
        name: of what is wanted.

    Returns:
        The module's dotted name.

    Raises:
        PluginError: where no plugin does.
    """
    homes: Mapping[str, str] = getattr(installed().command(command), "brings", {})
    if name not in homes:
        raise PluginError(f"no plugin brings isoprobe.{name}")
    return homes[name]


def _function(name: str) -> Callable[..., Any]:
    """Find the Python function of a command, which a plugin brings.

    Returns:
        The function.

    Raises:
        PluginError: where none does.
    """
    found: Callable[..., Any] | None = getattr(installed().command(name), "function", None)
    if found is None:
        raise PluginError(f"no plugin brings the command '{name}' as a Python function")
    return found
