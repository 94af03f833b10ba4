"""Hold an adapter to its laws: it looks before it loads, runs nothing, gives a sane model."""

from __future__ import annotations

import glob
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from isoprobe.checkpoints.source import Source
from isoprobe.contracts import ACTIVE_NATS, VAE
from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.errors import IsoprobeError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.testing.compare import require_close
from isoprobe.testing.hostile import armed_copies, foreign_files
from isoprobe.testing.laws import Law, Laws, law, require
from isoprobe.theory.formulas import decoder_response, kl_divergence, unused_variance

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Adapter, Metric

    Form = Callable[[Tensor], Tensor]

BATCH = 4
#: samples for what is compared on average
MANY = 256
#: mean |norm + sigma^2 - 1| below which a reading of the scale head is beyond doubt
FITS = 0.05
#: what a better fit with another power of sigma says
_CONFUSED = {1.0: "", 2.0: "a log-std read as logvar", 0.5: "a logvar read as log-std"}


def check_adapter(
    adapter: Adapter,
    path: str | Path,
    options: Mapping[str, str] | None = None,
    *,
    data: Tensor | None = None,
    by_name: bool = False,
) -> list[Law]:
    """List the laws of an adapter, tried on a checkpoint it reads.

    Args:
        adapter: an instance.
        path: a checkpoint of a trained model, file or folder.
        options: options to load it with.
        data: inputs as the model takes them, ``(N, *input_shape)``; with some, reconstruction is
            checked too, and the reading of the scale head is checked on them rather than on
            samples of the prior.
        by_name: the adapter is one that users name, since content cannot tell: it need not match,
            and may pass options on.

    Returns:
        The laws that apply.
    """
    return AdapterLaws(adapter, Path(path), dict(options or {}), data, by_name=by_name).collect()


def _looks(laws: AdapterLaws) -> bool:
    return not laws.by_name


def _has_data(laws: AdapterLaws) -> bool:
    return laws.data is not None


class AdapterLaws(Laws):
    """An adapter under test."""

    def __init__(
        self,
        adapter: Adapter,
        path: Path,
        options: dict[str, str],
        data: Tensor | None,
        *,
        by_name: bool,
    ) -> None:
        self.adapter, self.path, self.options = adapter, path, options
        self.data, self.by_name = data, by_name

    # ------------------------------------------------------------------ looking

    @law("matches accepts the checkpoint", when=_looks)
    def _accepts(self) -> None:
        require(self.adapter.matches(Source(self.path)), f"{self.path.name} is not accepted")

    @law("matches looks at content, not at the name", when=_looks)
    def _renamed(self) -> None:
        with TemporaryDirectory() as folder:
            copy = Path(folder) / "renamed"
            if self.path.is_dir():
                shutil.copytree(self.path, copy)
            else:
                shutil.copyfile(self.path, copy)
                # what lies beside it under its name (a declaration, settings) comes along
                for beside in self.path.parent.glob(f"{glob.escape(self.path.stem)}.*"):
                    if beside.is_file() and beside != self.path:
                        shutil.copyfile(beside, copy.with_suffix(beside.suffix))
            require(self.adapter.matches(Source(copy)), "a copy of another name is not accepted")

    @law("matches accepts no foreign file")
    def _refuses(self) -> None:
        with TemporaryDirectory() as folder:
            for what, path in foreign_files(Path(folder)):
                require(not self.adapter.matches(Source(path)), f"it accepts {what}")

    @law("matches runs no code of the file")
    def _matches_runs_nothing(self) -> None:
        self._runs_nothing(self.adapter.matches)

    @law("load runs no code of the file")
    def _load_runs_nothing(self) -> None:
        self._runs_nothing(lambda source: self.adapter.load(source, self.options))

    @law("a file cut short is refused with an error a user can act on", when=_looks)
    def _cut(self) -> None:
        with TemporaryDirectory() as folder:
            for copy in self._cut_copies(Path(folder)):
                try:
                    self.adapter.load(Source(copy), self.options)
                except IsoprobeError as error:
                    require("\n" not in str(error), "the error has more than one line")
                else:
                    require(condition=False, message=f"{copy.name} loads, half of it missing")

    @law("an unknown option is refused with an error a user can act on", when=_looks)
    def _unknown_option(self) -> None:
        try:
            self.adapter.load(Source(self.path), {**self.options, "no-such-option": "1"})
        except OptionError:
            return
        require(condition=False, message="an option nobody knows is taken in silence")

    # ------------------------------------------------------------------ behaving

    @law("encode gives a mean and a positive deviation for each latent")
    def _encodes(self) -> None:
        vae, x = self._model()
        if vae.encode is None:
            return
        posterior = vae.encode(x)
        for name, found in (("mean", posterior.mean), ("deviation", posterior.std)):
            expected = (len(x), vae.latent_size)
            require(
                found.shape == expected, f"{name} has shape {tuple(found.shape)}, not {expected}"
            )
            require(found.isfinite().all(), f"{name} is not finite")
        require((posterior.std > 0).all(), "a deviation is not positive")

    @law("decode gives one sample for each latent vector")
    def _decodes(self) -> None:
        vae, _ = self._model()
        found = vae.decode(self._latents(vae))
        expected = (BATCH, *vae.input_shape)
        require(found.shape == expected, f"decode gives {tuple(found.shape)}, not {expected}")
        require(found.isfinite().all(), "a decoded value is not finite")

    @law("model is in eval mode")
    def _eval(self) -> None:
        vae, _ = self._model()
        modules = [] if vae.module is None else list(vae.module.named_modules())
        training = [name or "the whole" for name, module in modules if module.training]
        require(not training, f"in train mode: {', '.join(training[:3])}")
        for name, form, argument in self._forms():
            first, second = form(argument), form(argument)
            require(torch.equal(first, second), f"{name} of the same input differs between calls")

    @law("inputs and weights are left unchanged")
    def _pure(self) -> None:
        vae, _ = self._model()
        state = {} if vae.module is None else vae.module.state_dict()
        before = {name: tensor.clone() for name, tensor in state.items()}
        for name, form, argument in self._forms(vae):
            kept = argument.clone()
            form(argument)
            require(torch.equal(argument, kept), f"{name} changes its input")
        changed = [name for name, tensor in before.items() if not torch.equal(tensor, state[name])]
        require(not changed, f"weights or buffers changed: {', '.join(changed[:3])}")

    @law("rows of a batch are independent")
    def _rows(self) -> None:
        for name, form, argument in self._forms():
            alone = torch.cat([form(argument[i : i + 1]) for i in range(len(argument))])
            require_close(alone, form(argument), 1e-4, f"{name} of a row by itself")

    @law("logits agree with the decoded mean")
    def _logits(self) -> None:
        vae, _ = self._model()
        if vae.decode_logits is not None:
            z = self._latents(vae)
            mean = torch.sigmoid(vae.decode_logits(z))
            require_close(mean, vae.decode(z), 1e-5, "sigmoid of the logits")

    @law("float64 works and agrees with the own dtype")
    def _double(self) -> None:
        single = [(name, form(argument)) for name, form, argument in self._forms()]
        vae = self._load()
        vae.to(None, torch.float64)
        double = [(form, argument.double()) for _, form, argument in self._forms(vae)]
        for (name, found), (form, argument) in zip(single, double, strict=True):
            exact = form(argument)
            require(exact.dtype == torch.float64, f"{name} in float64 gives {exact.dtype}")
            require_close(found.double(), exact, 1e-3, f"{name} in the own dtype")

    @law("loading twice gives the same model")
    def _same(self) -> None:
        first = [form(argument) for _, form, argument in self._forms()]
        second = [form(argument) for _, form, argument in self._forms()]
        require(all(map(torch.equal, first, second)), "two loads differ")

    # ------------------------------------------------------------------ declaring

    @law("form of the scale head is declared")
    def _declared(self) -> None:
        vae = self._load()
        require(
            vae.encode is None or vae.facts.scale_head,
            "facts.scale_head is empty; say how the deviation is read (logvar, logstd, ...)",
        )

    @law("scale head is read in its own form")
    def _scale_head(self) -> None:
        vae = self._load()
        metric = _metric(vae)
        if vae.encode is None or not metric.smooth:
            return
        x = self._many(vae)
        posterior = vae.encode(x)
        pulled = _pullback(vae, metric, posterior.mean)
        misfits = {
            power: _misfit(posterior.mean, posterior.std**power, pulled) for power in _CONFUSED
        }
        if any(math.isnan(misfit) for misfit in misfits.values()):
            return  # a single latent fits some beta however it is read
        best = min(misfits, key=lambda power: misfits[power])
        require(
            best == 1.0 or misfits[1.0] < FITS or misfits[best] > 0.5 * misfits[1.0],
            f"norm + sigma^2 misses 1 by {misfits[1.0]:.2f} as read, and by {misfits[best]:.2f} "
            f"with sigma to the power {best:g}: {_CONFUSED[best]}",
        )

    @law("declared metric is known")
    def _known_metric(self) -> None:
        spec = self._load().facts.metric
        if spec is not None:
            installed().metric(spec)

    @law("reconstruction beats the mean input", when=_has_data)
    def _reconstructs(self) -> None:
        vae = self._load()
        if vae.encode is None or self.data is None:
            return
        metric, x = _metric(vae), self._many(vae)
        decoded = vae.decode(vae.encode(x).mean)
        average = x.mean(dim=0, keepdim=True).expand_as(x)
        own, plain = (float(metric.distortion(x, y).mean()) for y in (decoded, average))
        require(own < plain, f"distortion is {own:.4g}; the mean input has {plain:.4g}")

    # ------------------------------------------------------------------ generated cases

    def _load(self) -> VAE:
        return self.adapter.load(Source(self.path), self.options)

    def _model(self) -> tuple[VAE, Tensor]:
        vae = self._load()
        return vae, self._inputs(vae, BATCH)

    def _inputs(self, vae: VAE, count: int) -> Tensor:
        if self.data is not None:
            return self.data[:count].to(vae.dtype).clone()
        low, high = vae.facts.input_range or (-1.0, 1.0)
        generator = torch.Generator().manual_seed(0)
        draws = torch.rand(count, *vae.input_shape, generator=generator)
        return (low + (high - low) * draws).to(vae.dtype)

    def _many(self, vae: VAE) -> Tensor:
        """Inputs a trained model is at home with: data, or else samples of its prior."""
        if self.data is not None:
            return self._inputs(vae, MANY)
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(MANY, vae.latent_size, generator=generator).to(vae.dtype)
        decoded = vae.decode(z)
        return decoded.clamp(*vae.facts.input_range) if vae.facts.input_range else decoded

    @staticmethod
    def _latents(vae: VAE) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(BATCH, vae.latent_size, generator=generator).to(vae.dtype)

    def _forms(
        self, vae: VAE | None = None
    ) -> list[tuple[str, Callable[[Tensor], Tensor], Tensor]]:
        """What the model computes: name, function, argument."""
        vae = vae or self._load()
        forms = [("decode", vae.decode, self._latents(vae))]
        encode = vae.encode
        if encode is not None:
            x = self._inputs(vae, BATCH)
            forms.append(("the mean of encode", lambda x: encode(x).mean, x))
            forms.append(("the deviation of encode", lambda x: encode(x).std, x.clone()))
        return forms

    def _runs_nothing(self, act: Callable[[Source], object]) -> None:
        with TemporaryDirectory() as folder:
            marker = Path(folder) / "ran"
            for what, copy in armed_copies(self.path, Path(folder), marker):
                try:
                    act(Source(copy))
                except Exception as error:  # what it says is another law's business
                    require(not marker.exists(), f"a {what} ran its code, then {error!r}")
                require(not marker.exists(), f"a {what} ran its code")

    def _cut_copies(self, folder: Path) -> list[Path]:
        """Copies whose largest file lacks its second half."""
        copy = folder / self.path.name
        if self.path.is_dir():
            shutil.copytree(self.path, copy)
        else:
            shutil.copyfile(self.path, copy)
        files = [p for p in copy.rglob("*") if p.is_file()] if copy.is_dir() else [copy]
        largest = max(files, key=lambda p: p.stat().st_size)
        data = largest.read_bytes()
        largest.write_bytes(data[: len(data) // 2])
        return [copy]


def _metric(vae: VAE) -> Metric:
    """The declared metric, or the plain one of the decoder's output."""
    plain = "sse" if vae.decode_logits is None else "bce"
    return installed().metric(vae.facts.metric or plain)


def _pullback(vae: VAE, metric: Metric, mean: Tensor) -> Tensor:
    return exact_pullback(output_metric(metric, vae), mean).diagonal


def _misfit(mean: Tensor, std: Tensor, pulled: Tensor) -> float:
    """Mean |norm + sigma^2 - 1| of active latents with one beta for all; NaN for fewer than two."""
    scaled = decoder_response(std, pulled).mean(0).double()
    room = unused_variance(std**2).mean(0).double()
    active = kl_divergence(mean, std).mean(0) > ACTIVE_NATS
    if active.sum() < 2:
        return math.nan
    scaled, room = scaled[active], room[active]
    beta = scaled.sum() / room.sum()
    return float((scaled / beta - room).abs().mean())
