"""A small model away from any optimum, and every number of its result computed the long way.

Encoder linear with deviations that vary by sample, decoder bent, columns neither orthogonal nor
of the right length, one latent mixed, one collapsed, beta wrong: nothing is 0 or 1 by accident.
Plain numpy in double precision throughout, from the definitions; only random draws are isoprobe's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import genpareto, skew
from scipy.stats import norm as gaussian
from scipy.stats import t as student
from sklearn import metrics as sklearn
from torch import Tensor, nn

from isoprobe.contracts import VAE, Facts, Posterior
from isoprobe.probe.untrained import untrained
from isoprobe.statistics.draws import normal

M, N, ROWS, SEED = 6, 4, 70, 3
BETA, DECLARED, SIGMA2 = 0.37, 0.5, 0.3
PAIRS = 2
BEND = 0.15
QUANTILE, CONTAMINATION = 0.8, 0.23
AT, STEPS, WALKS = 3, 5, 2
ACTIVE = np.array([True, True, True, False])


class Networks(nn.Module):
    """Encoder to mean and log deviation; decoder A z + b + BEND (V z)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(M, 2 * N, dtype=torch.float64)
        self.decoder = nn.Linear(N, M, dtype=torch.float64)
        self.bent = nn.Linear(N, M, bias=False, dtype=torch.float64)

    def encode(self, x: Tensor) -> Posterior:
        mean, log_std = self.encoder(x).chunk(2, 1)
        return Posterior(mean, log_std.exp())

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z) + BEND * self.bent(z).square()


def networks() -> Networks:
    """Return them with fixed parameters."""
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(2 * N, M)) / np.sqrt(M)
    bias = np.array([0.3, -0.2, 0.1, 0.01, -1.1, -1.0, -0.15, 0.01])
    weight[N - 1] *= 0.03  # collapsed: the posterior is the prior but for a little
    weight[N:] *= np.array([0.25, 0.25, 0.3, 0.01])[:, None]
    found = Networks()
    values = {
        "encoder.weight": weight,
        "encoder.bias": bias,
        "decoder.weight": rng.normal(size=(M, N)) * np.array([0.9, 0.5, 0.4, 0.05]),
        "decoder.bias": rng.normal(size=M) / 3,
        "bent.weight": rng.normal(size=(M, N)) * np.array([0.5, 0.6, 0.4, 0.1]),
    }
    found.load_state_dict({name: torch.as_tensor(value) for name, value in values.items()})
    return found


def vae() -> VAE:
    """The model, which declares another beta than the one it is analysed with."""
    module = networks()
    facts = Facts(metric=f"gaussian:sigma2={SIGMA2}", beta=DECLARED)
    return VAE(module.decode, module.encode, (M,), (N,), module=module, facts=facts)


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and marks of anomalies, which lie a little further out."""
    rng = np.random.default_rng(7)
    marks = np.arange(ROWS) % 4 == 1
    return rng.normal(size=(ROWS, M)) * np.where(marks, 1.3, 1.0)[:, None], marks


class Oracle:
    """Every number of the result of :func:`vae` on :func:`rows`."""

    def __init__(self) -> None:
        self.x, self.marks = rows()
        self.index = np.arange(ROWS)
        self.part = {k: v.numpy() for k, v in networks().state_dict().items()}
        self.mu, self.s = self.encode(self.part)

    # -------------------------------------------------------------- the model

    def encode(self, part: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        heads = self.x @ part["encoder.weight"].T + part["encoder.bias"]
        return heads[:, :N], np.exp(heads[:, N:])

    def decode(self, z: np.ndarray, part: dict[str, np.ndarray] | None = None) -> np.ndarray:
        part = part or self.part
        straight = z @ part["decoder.weight"].T + part["decoder.bias"]
        return straight + BEND * (z @ part["bent.weight"].T) ** 2

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        bent = self.part["bent.weight"]
        return self.part["decoder.weight"] + 2 * BEND * (z @ bent.T)[:, :, None] * bent

    @staticmethod
    def d(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        constant = M / 2 * np.log(2 * np.pi * SIGMA2)
        return ((x - y) ** 2).sum(-1) / (2 * SIGMA2) + constant

    # -------------------------------------------------------------- a sample's numbers

    @cached_property
    def kl(self) -> np.ndarray:
        return (self.mu**2 + self.s**2 - 2 * np.log(self.s) - 1) / 2

    @cached_property
    def losses(self) -> dict[str, np.ndarray]:
        check = self.decode(self.mu)
        pairs = self.pairs(self.x)
        return {
            "distortion": pairs.mean(1),
            "distortion_self": self.d(self.x, self.x),
            "distortion_transform": self.d(self.x, check),
            "distortion_coding": self.pairs(check).mean(1) - self.d(check, check),
        }

    def pairs(self, reference: np.ndarray) -> np.ndarray:
        """D of each pair of draws, less what the draws are longer than usual, in the metric."""
        noise = normal(SEED, "posterior", self.index, PAIRS * N).reshape(ROWS, PAIRS, N)
        found = []
        for u in (self.s * noise[:, pair] for pair in range(PAIRS)):
            ends = [self.d(reference, self.decode(self.mu + sign * u)) for sign in (1, -1)]
            longer = np.array([v @ g @ v for v, g in zip(u, self.gram, strict=True)])
            usual = np.array([np.trace(np.diag(s**2) @ g) for s, g in zip(self.s, self.gram,
                              strict=True)])  # fmt: skip
            found.append(np.mean(ends, 0) - (longer - usual))
        return np.stack(found, 1)

    def fixed(self, mu: np.ndarray, s: np.ndarray, part: dict[str, np.ndarray]) -> np.ndarray:
        """E_z D over draws that are the same for every row: orthogonal columns of length 1."""
        return np.mean([self.d(self.x, end) for end in self.ends(mu, s, part)], 0)

    def ends(self, mu: np.ndarray, s: np.ndarray, part: dict[str, np.ndarray]) -> list[np.ndarray]:
        """What every row decodes to at those draws."""
        drawn = normal(0, "scores", np.arange(8), N)
        values, vectors = np.linalg.eigh(drawn.T @ drawn / 8)
        straight = drawn @ vectors @ np.diag(values**-0.5) @ vectors.T
        return [self.decode(mu + sign * s * e, part) for e in straight for sign in (1, -1)]

    @cached_property
    def gram(self) -> np.ndarray:
        columns = self.jacobian(self.mu)
        return np.einsum("bij,bik->bjk", columns, columns) / (2 * SIGMA2)

    @cached_property
    def g(self) -> np.ndarray:
        return np.einsum("bjj->bj", self.gram)

    @cached_property
    def stationarity(self) -> np.ndarray:
        noise = normal(SEED, "posterior", self.index, PAIRS * N).reshape(ROWS, PAIRS, N)
        total = np.zeros((ROWS, N))
        for pair, sign in product(range(PAIRS), (1, -1)):
            shift = self.s * sign * noise[:, pair]
            z = self.mu + shift
            slope = (self.decode(z) - self.x) / SIGMA2
            total += shift * np.einsum("bij,bi->bj", self.jacobian(z), slope)
            # less what the draw is longer than usual along each latent, to second order
            total -= 2 * shift * np.einsum("bjk,bk->bj", self.gram, shift)
            total += 2 * self.s**2 * self.g
        return total / (2 * PAIRS)

    @cached_property
    def drift(self) -> np.ndarray:
        """mu_j E[d_j], d at the draws."""
        noise = normal(SEED, "posterior", self.index, PAIRS * N).reshape(ROWS, PAIRS, N)
        total = np.zeros((ROWS, N))
        for pair, sign in product(range(PAIRS), (1, -1)):
            z = self.mu + self.s * sign * noise[:, pair]
            slope = (self.decode(z) - self.x) / SIGMA2
            total += np.einsum("bij,bi->bj", self.jacobian(z), slope)
        return self.mu * total / (2 * PAIRS)

    # -------------------------------------------------------------- the map z -> y

    @cached_property
    def bins(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each latent, for its bins that hold samples: share, mean, spread, E[1/sigma]."""
        edge, count = np.arcsinh(250.0), 2048
        found = []
        for mu, s in zip(self.mu.T, self.s.T, strict=True):
            cell = np.floor((np.arcsinh(mu / 2) + edge) / (2 * edge) * count)
            groups = [cell == c for c in np.unique(cell)]
            found.append(
                (
                    np.array([g.mean() for g in groups]),
                    np.array([mu[g].mean() for g in groups]),
                    np.array([mu[g].var() + (s[g] ** 2).mean() for g in groups]),
                    np.array([(1 / s[g]).mean() for g in groups]),
                )
            )
        return found

    def y(self, latent: int, z: float) -> float:
        """Integral of sqrt(beta/2) / sigma from 0 to z, exact for what lies between knots."""
        _, knots, _, inverse = self.bins[latent]
        low, high = sorted((0.0, z))
        places = np.r_[low, knots[(knots > low) & (knots < high)], high]
        slopes = np.sqrt(BETA / 2) * np.interp(places, knots, inverse)
        return float(np.sign(z) * np.trapezoid(slopes, places))

    @cached_property
    def exact(self) -> np.ndarray:
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        weights = weights / weights.sum()
        found = []
        for j, (share, mean, spread, _) in enumerate(self.bins):
            z = mean[:, None] + np.sqrt(spread)[:, None] * nodes
            y = np.array([[self.y(j, value) for value in row] for row in z])
            chance = share[:, None] * weights
            found.append((chance * y**2).sum() - (chance * y).sum() ** 2)
        return np.array(found)

    @cached_property
    def exact_error(self) -> np.ndarray:
        """Which samples were drawn, by bin, and the slopes' own scatter, by a tiny change of each.

        The slope of a bin counts on its side of the midpoints to its neighbours.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        weights, found = weights / weights.sum(), []
        for j, (share, mean, spread, inverse) in enumerate(self.bins):
            z = mean[:, None] + np.sqrt(spread)[:, None] * nodes
            y = np.array([[self.y(j, value) for value in row] for row in z])
            chance, count = share[:, None] * weights, np.round(share * ROWS)
            off = y - (chance * y).sum()
            within = (weights * off**2).sum(1)
            drawn = (share * (within - (share * within).sum()) ** 2).sum() / (ROWS - 1)
            middle = np.r_[z.min(), (mean[1:] + mean[:-1]) / 2, z.max()]
            moved = [
                np.clip(z, low, high) - np.clip(0.0, low, high) for low, high in pairwise(middle)
            ]
            answer = [2 * np.sqrt(BETA / 2) * (chance * off * m).sum() for m in moved]
            scatter = self.scatter(j, count, inverse)
            found.append(np.sqrt(drawn + (np.square(answer) * scatter / count).sum()))
        return np.array(found)

    def scatter(self, j: int, count: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """Var(1/sigma) about the curve, over eight bins to either side."""
        edge, cells = np.arcsinh(250.0), 2048
        cell = np.floor((np.arcsinh(self.mu[:, j] / 2) + edge) / (2 * edge) * cells)
        groups = [1 / self.s[cell == c, j] for c in np.unique(cell)]
        inside = np.array([((g - g.mean()) ** 2).sum() for g in groups])
        step = np.r_[np.diff(inverse) ** 2 / (1 / count[1:] + 1 / count[:-1]), 0]
        free = count - 1 + np.r_[np.ones(len(count) - 1), 0]
        near = [slice(max(k - 8, 0), k + 9) for k in range(len(count))]
        return np.array([(inside + step)[s].sum() / max(free[s].sum(), 1) for s in near])

    @cached_property
    def order(self) -> np.ndarray:
        return np.array(sorted(range(N), key=lambda j: (not ACTIVE[j], -self.exact[j])))

    # -------------------------------------------------------------- groups

    def overview(self) -> Iterator[tuple[str, object]]:
        yield "active", ACTIVE
        for name, values in {
            "posterior_mean": self.mu,
            "kl": self.kl,
            "variance": self.s**2,
            "inverse_variance": 1 / self.s**2,
            "second_moment": self.mu**2 + self.s**2,
            "rate": self.kl.sum(1),
            **self.losses,
        }.items():
            yield f"{name}_mean", values.mean(0)
            yield f"{name}_sd", values.std(0, ddof=1)
            yield f"{name}_se", values.std(0, ddof=1) / np.sqrt(ROWS)

    def isometry(self) -> Iterator[tuple[str, object]]:
        response, stationary = 2 * self.s**2 * self.g, self.stationarity
        variance = (self.s**2).mean(0)
        for name, values in (("norm", response / BETA), ("stationary_norm", stationary / BETA)):
            yield f"{name}_mean", values.mean(0)
            yield f"{name}_sd", values.std(0, ddof=1)
            yield f"{name}_se", values.std(0, ddof=1) / np.sqrt(ROWS)
            stem = name.removesuffix("norm")
            yield f"{stem}residual_mean", values.mean(0) + variance - 1
        yield "pullback_mean", self.g.mean(0)
        yield "pullback_sd", self.g.std(0, ddof=1)
        yield "inverse_variance_expected", 1 + 2 * self.g.mean(0) / BETA
        for name, values in (("beta_pullback", response), ("beta_recovered", stationary)):
            found = self.ratio(values, 1 - self.s**2)
            for suffix, number in zip(("", "_low", "_high"), found, strict=True):
                yield name + suffix, np.where(ACTIVE, number, np.nan)
        length = np.sqrt(self.g)
        cosine = np.abs(self.gram / length[:, :, None] / length[:, None, :]).mean(0)
        yield "cosine", cosine
        pairs = [
            cosine[j, k] for j in range(N) for k in range(N) if j != k and ACTIVE[[j, k]].all()
        ]
        yield "cosine_mean_abs", np.mean(pairs)
        inner = self.gram[:, ACTIVE][:, :, ACTIVE]
        diagonal = np.log(self.g[:, ACTIVE]).sum(1)
        yield "hadamard_gap", ((diagonal - np.log(np.linalg.det(inner))) / 2).mean()

    def ratio(self, over: np.ndarray, under: np.ndarray) -> tuple[np.ndarray, ...]:
        """Ratio of means over samples, and the ends of its interval by leaving blocks out."""
        value, error, a = *self.error(over, under), skew(-self.without(over, under)) / 8
        ends = [student.ppf(level, 63) for level in (0.975, 0.025)]
        return value, *(value - error * 3 / a * (np.cbrt(1 + a * (t - a / 6)) - 1) for t in ends)

    def error(self, over: np.ndarray, under: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ratio of means over samples, and its standard error."""
        return over.mean(0) / under.mean(0), np.sqrt(63 * self.without(over, under).var(0))

    def without(self, over: np.ndarray, under: np.ndarray) -> np.ndarray:
        """The ratio without each block."""
        blocks = [self.index % 64 != b for b in range(64)]
        return np.array([over[b].sum(0) / under[b].sum(0) for b in blocks])

    def importance(self) -> Iterator[tuple[str, object]]:
        inverse = 1 / self.s**2
        share = np.where(ACTIVE, self.exact, 0) / self.exact[ACTIVE].sum()
        yield "rough", BETA / 2 * inverse.mean(0)
        yield "rough_se", BETA / 2 * inverse.std(0, ddof=1) / np.sqrt(ROWS)
        yield "exact", self.exact
        yield "exact_se", self.exact_error
        yield "determined", np.ones(N, bool)
        yield "called_for", (self.g.mean(0) + BETA / 2) * self.mu.var(0, ddof=1) + BETA / 2
        yield "share", share
        before = {j: self.order[: place + 1] for place, j in enumerate(self.order)}
        yield "cumulative_share", np.array([share[before[j]].sum() for j in range(N)])
        yield "rate_bits", self.kl.mean(0) / np.log(2)
        yield "idle_share", (self.s**2 > 0.8).mean(0)
        yield "state", np.array([0, 0, 1, 2])
        yield "order", self.order
        yield "water_level", BETA / 2

    def coordinates(self) -> Iterator[tuple[str, object]]:
        longest = max(len(b[0]) for b in self.bins)
        padded = [np.pad(np.array(b, float), [(0, 0), (0, longest - len(b[0]))],
                         constant_values=np.nan) for b in self.bins]  # fmt: skip
        yield "knots", np.array([b[1] for b in padded])
        yield "slopes", np.sqrt(BETA / 2) * np.array([b[3] for b in padded])
        yield "variance_of_mean", self.ys.var(0)

    @cached_property
    def ys(self) -> np.ndarray:
        return np.array([[self.y(j, z) for j, z in enumerate(row)] for row in self.mu])

    def rate_distortion(self) -> Iterator[tuple[str, object]]:
        loss, rates = self.losses, self.kl.mean(0)
        entropy = -np.log(self.s).mean(0)
        excess = (loss["distortion"] - loss["distortion_self"]).mean()
        transform = loss["distortion_transform"] - loss["distortion_self"]
        unused = 1 - (self.s**2).mean(0)
        yield "coding_loss_expected", BETA / 2 * unused[ACTIVE].sum()
        yield "transform_loss", transform.mean()
        yield "transform_loss_se", transform.std(ddof=1) / np.sqrt(ROWS)
        yield "loss_ratio", transform.mean() / loss["distortion_coding"].mean()
        yield "distortion", excess
        yield "rate_bits", rates.sum() / np.log(2)
        yield "mutual_information", rates[ACTIVE].sum()
        yield "elbo", -excess / BETA - rates.sum()
        yield "rate_entropy", entropy
        half = ((self.mu**2 + self.s**2).mean(0)[ACTIVE] - 1).sum() / 2
        yield "certificate_gap", half
        yield "elbo_entropy", -excess / BETA - entropy[ACTIVE].sum()
        spectrum = np.where(ACTIVE, self.exact, 0)
        betas = [BETA * 2.0**octave for octave in range(-8, 9)]
        filled = [[max(np.log(v / (b / 2)) / 2, 0) if v else 0 for v in spectrum] for b in betas]
        yield "water_filling_rate", np.array(filled[8])
        yield "other_beta", np.array(betas)
        yield "predicted_active", np.array([sum(v > b / 2 for v in spectrum) for b in betas])
        yield "predicted_rate", np.array([sum(each) for each in filled])
        yield (
            "predicted_distortion",
            np.array([sum(min(v, b / 2) for v in spectrum) for b in betas]),
        )
        yield "collapse_beta", 2 * spectrum

    def samples(self) -> Iterator[tuple[str, object]]:
        yield from {"mean": self.mu, "std": self.s, "kl": self.kl.sum(1), **self.losses}.items()
        yield "label", self.marks
        yield "anomalous", self.marks
        yield "pullback", self.g
        yield "y", self.ys
        yield "score_distortion", self.fixed(self.mu, self.s, self.part)
        yield (
            "score_tolerance",
            1e-6 * (np.abs(self.fixed(self.mu, self.s, self.part)) + BETA * self.kl.sum(1)),
        )
        yield "score_rate", BETA * self.kl
        yield "score", self.score
        twin = self.untrained
        yield "untrained_distortion", twin[0]
        yield "untrained_rate", twin[1]
        yield "untrained_score", twin[0] + BETA * twin[1]
        yield from self.densities.items()

    @cached_property
    def score(self) -> np.ndarray:
        return self.fixed(self.mu, self.s, self.part) + BETA * self.kl.sum(1)

    @cached_property
    def untrained(self) -> tuple[np.ndarray, np.ndarray]:
        """Distortion and rate of the network with parameters drawn anew."""
        part = {k: v.numpy() for k, v in untrained(networks(), SEED).tensors.items()}
        mu, s = self.encode(part)
        rate = (mu**2 + s**2 - 2 * np.log(s) - 1).sum(1) / 2
        return self.fixed(mu, s, part), rate

    @cached_property
    def densities(self) -> dict[str, np.ndarray]:
        n, rate = int(ACTIVE.sum()), self.kl.sum(1)
        excess = self.losses["distortion"] - self.losses["distortion_self"]
        # Eq. 57 solved for log p(y), with its constant as it is printed
        loss = excess + BETA * rate
        by_loss = -(loss - n * BETA / 2 * (1 - np.log(BETA * np.pi * np.e))) / BETA
        prior = np.log(np.exp(-(self.mu[:, ACTIVE] ** 2) / 2) / np.sqrt(2 * np.pi)).sum(1)
        by_sigmas = prior + np.log(self.s[:, ACTIVE] / np.sqrt(BETA / 2)).sum(1)
        volume = np.full(ROWS, n / 2 * np.log(1 / (2 * SIGMA2)))
        # the integral of exp(-D/beta): a Gaussian of variance beta SIGMA2 in M dimensions
        normaliser = M / 2 * (np.log(2 * np.pi * SIGMA2 * BETA) - np.log(2 * np.pi * SIGMA2) / BETA)
        return {
            "log_density_prior": prior,
            "log_density_metric": by_loss,
            "log_density_metric_sigmas": by_sigmas,
            "log_volume": volume,
            "log_density_input": by_loss + volume,
            "log_density_input_sigmas": by_sigmas + volume,
            "log_density_absolute": -(self.losses["distortion"] / BETA + rate) - normaliser,
        }

    def density(self) -> Iterator[tuple[str, object]]:
        one = self.densities["log_density_metric"]
        two = self.densities["log_density_metric_sigmas"]
        yield "volume", "input space by (n/2) log a_x (Eq. 21)"
        yield (
            "absolute",
            "absolute values exist: a lower bound of log p(x) in expectation over draws",
        )
        error = np.sqrt((self.pairs(self.x).var(1, ddof=1) / PAIRS).mean())
        yield "distortion_draw_se", error
        yield "log_density_metric_se", error / BETA
        yield from self.weighted()
        yield "mean_log_density_metric", one.mean()
        spread = ((one - one.mean()) * (two - two.mean())).mean()
        yield "estimator_correlation", spread / one.std() / two.std()
        yield "estimator_difference_mean", one.mean() - two.mean()
        yield "estimator_difference_sd", (one - two).std()

    def weighted(self) -> Iterator[tuple[str, object]]:
        """The importance-weighted bound of fifty draws a row, and the tail of their weights."""
        noise = normal(SEED, "weighted", self.index, 50 * N).reshape(ROWS, 50, N)
        z = self.mu[:, None] + self.s[:, None] * noise
        lower = np.stack([self.d(self.x, self.decode(z[:, k])) for k in range(50)], 1) / BETA
        prior, own = gaussian.logpdf(z).sum(2), gaussian.logpdf(noise).sum(2)
        logs = prior - own + np.log(self.s).sum(1)[:, None] - lower
        gap = logsumexp(logs, axis=1) - np.log(50) - logs.mean(1)
        weights = np.exp(logs - logs.max(1)[:, None])
        shape = np.array([self.tail(np.sort(row)) for row in weights])
        yield "iwae_gap", gap.mean()
        yield "iwae_gap_se", gap.std(ddof=1) / np.sqrt(ROWS)
        yield "effective_draws", (weights.sum(1) ** 2 / (weights**2).sum(1)).mean()
        yield "pareto_k", np.median(shape)
        heavy = (shape > 0.7).mean()
        yield "pareto_k_heavy", heavy
        near = f"near log p(x): Pareto k is at most 0.7 in {1 - heavy:.0%} of rows"
        none = f"no claim on log p(x): Pareto k is above 0.7 in {heavy:.0%} of rows"
        yield "iwae_claim", near if np.median(shape) <= 0.7 else none

    @staticmethod
    def tail(weights: np.ndarray) -> float:
        """Shape of the ten largest of fifty, by the posterior mean of Zhang and Stephens."""
        over = weights[40:] - weights[39]
        grid = [1 / over[9] + (1 - np.sqrt(33 / (j - 0.5))) / (3 * over[2]) for j in range(1, 34)]
        shapes = [np.log(1 - b * over).mean() for b in grid]
        # the likelihood of k and scale = -k / b, profiled
        fits = [genpareto.logpdf(over, k, scale=-k / b).sum() for b, k in zip(grid, shapes,
                strict=True)]  # fmt: skip
        chance = np.exp(np.array(fits) - max(fits))
        best = (np.array(grid) * chance).sum() / chance.sum()
        return float((10 * np.log(1 - best * over).mean() + 5) / 20)

    def anomaly(self) -> Iterator[tuple[str, object]]:
        marks = self.marks
        yield "reference", np.sort(self.score[~marks])
        yield "rule", np.array(["quantile", "contamination"])
        yield "share", np.array([1 - QUANTILE, CONTAMINATION])
        yield "prevalence", marks.mean()
        ends = self.ends(self.mu, self.s, self.part)
        by_input = np.mean([(self.x - end) ** 2 for end in ends], 0) / (2 * SIGMA2)
        by_input += np.log(2 * np.pi * SIGMA2) / 2
        usual = {
            "mean": self.mu,
            "kl": self.kl,
            "whole": self.fixed(self.mu, self.s, self.part),
            "input": self.x,
            "distortion": by_input,
        }
        for name, values in usual.items():
            yield f"usual_{name}_mean", values[~marks].mean(0)
            yield f"usual_{name}_sd", values[~marks].std(0, ddof=1)
        twin = self.untrained[0] + BETA * self.untrained[1]
        for prefix, score in (("", self.score), ("untrained_", twin)):
            normal_rows, every = np.sort(score[~marks]), np.sort(score)
            thresholds = [
                normal_rows[len(normal_rows) - 1 - int((1 - QUANTILE) * len(normal_rows))],
                every[ROWS - 1 - int(CONTAMINATION * ROWS)],
            ]
            flags = [score > threshold for threshold in thresholds]
            yield prefix + "threshold", np.array(thresholds)
            if not prefix:
                count = len(normal_rows)
                alarms = (int((1 - QUANTILE) * count) + 1) / (count + 1)
                yield "false_alarms", np.array([alarms, np.nan])
            for name in ("precision", "recall", "f1"):
                judge = getattr(sklearn, f"{name}_score")
                yield prefix + name, np.array([judge(marks, flag) for flag in flags])
            yield prefix + "flagged", np.array([flag.sum() for flag in flags])
            yield prefix + "ties", np.array([1, 1])
            yield prefix + "auroc", sklearn.roc_auc_score(marks, score)
            yield prefix + "average_precision", sklearn.average_precision_score(marks, score)

    def traversal(self) -> Iterator[tuple[str, object]]:
        chosen = self.order[:WALKS]
        z = np.tile(np.linspace(-2, 2, STEPS), (WALKS, 1))
        y = np.array([[self.y(j, v) for v in row] for j, row in zip(chosen, z, strict=True)])
        equal_y = np.linspace(y[:, 0], y[:, -1], STEPS, axis=1)
        equal_z = np.array(
            [
                [brentq(lambda v, j=j, a=a: self.y(j, v) - a, -9, 9, xtol=1e-13) for a in row]
                for j, row in zip(chosen, equal_y, strict=True)
            ]
        )
        yield "latents", chosen
        yield "base", self.mu[AT]
        yield from {"z": z, "y": y, "z_equal_y": equal_z, "y_equal_y": equal_y}.items()
        for name, walk in (("images", z), ("images_equal_y", equal_z)):
            points = np.tile(self.mu[AT], (WALKS, STEPS, 1))
            for rank, j in enumerate(chosen):
                points[rank, :, j] = walk[rank]
            yield name, self.decode(points.reshape(-1, N)).reshape(WALKS, STEPS, M)

    def everything(self) -> dict[str, object]:
        """Every number by ``group/name``."""
        groups = {
            "overview": self.overview(),
            "isometry": self.isometry(),
            "importance": self.importance(),
            "coordinates": self.coordinates(),
            "rate-distortion": self.rate_distortion(),
            "samples": self.samples(),
            "density": self.density(),
            "anomaly": self.anomaly(),
            "traversal": self.traversal(),
        }
        return {f"{g}/{name}": value for g, pairs in groups.items() for name, value in pairs}
