"""What a summary says, against results made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
import numpy as np
import pytest

from isoprobe.contracts import Variable
from isoprobe.show.summary import MAX_ROWS, to_json, to_text
from isoprobe.show.verdict import Reading, verdict
from tests.made import shown as told


def variables(**arrays: Any) -> dict[str, Variable]:
    return {
        name: Variable(("latent",) * np.ndim(value), np.asarray(value), name)
        for name, value in arrays.items()
    }


class Shelf(dict[str, Variable]):
    """A group in memory."""

    def shown(self) -> dict[str, str]:
        return {name: v.shown for name, v in self.items() if v.shown != "none"}


class Made:
    """A result in memory, whose variables say of themselves what built-in analyses say."""

    def __init__(self, groups: Mapping[str, dict[str, Variable]], **attrs: Any) -> None:
        self._groups = {name: Shelf(told(name, group)) for name, group in groups.items()}
        self.attrs = {
            "model": "made",
            "adapter": "native",
            "metric": "sse",
            "data": "x.npy",
            "samples": 5000,
            "beta": 2.0,
            "beta_source": "declared",
            "beta_declared": 2.0,
            "beta_recovered": 2.1,
            "beta_ci95": np.array([2.0, 2.2]),
            "beta_recovered_pullback": 2.05,
            "notes": ["values read as they are"],
            "output": "",
            **attrs,
        }

    def groups(self) -> list[str]:
        return list(self._groups)

    def __getitem__(self, group: str) -> Shelf:
        return self._groups[group]


def made(latents: int = 3, **attrs: Any) -> Made:
    """Latents in ascending importance, the last of them collapsed."""
    rising = np.arange(1.0, latents + 1)
    active = np.arange(latents) < latents - 1
    groups = {
        "overview": variables(
            active=active,
            kl_mean=rising,
            variance_mean=rising / 10,
            inverse_variance_mean=rising,
            distortion_mean=7.5,
        ),
        "isometry": variables(
            norm_mean=rising / 4,
            norm_sd=rising,
            norm_se=rising,
            residual_mean=rising * 0,
            stationary_norm_mean=rising,
            stationary_residual_mean=rising * 0,
            beta_recovered=np.where(active, 2.1, np.nan),
            cosine_mean_abs=0.01,
            hadamard_gap=0.02,
        ),
        "importance": variables(
            rough=rising,
            exact=rising,
            share=np.where(active, rising, 0) / rising[:-1].sum(),
            state=np.where(active, 0, 2).astype(np.int8),
        ),
    }
    return Made(groups, **attrs)


def text(result: Made, width: int = 80, **options: Any) -> str:
    return click.unstyle(to_text(result, width, **options))


def test_latents_stand_in_descending_importance_and_collapsed_ones_below() -> None:
    summary = text(made(5))
    lines = [line for line in summary.splitlines() if " active " in line and "%" in line]
    assert [int(line.split()[0]) for line in lines] == [3, 2, 1, 0]
    assert "1 collapsed, carrying nothing: 4" in summary


def test_small_numbers_lose_digits_rather_than_their_place() -> None:
    result = made(4)
    tiny = np.array([0.0659, 0.00123, 123456.0, 0.0])
    result["overview"]["kl_mean"] = replace(result["overview"]["kl_mean"], values=tiny)
    rows = [line for line in text(result).splitlines() if " active " in line and "%" in line]
    assert [row.split()[1] for row in rows] == ["1e+05", "0.001", "0.066"]
    assert len({row.index("active") for row in rows}) == 1


def test_bars_are_as_long_as_the_shares() -> None:
    lines = [line for line in text(made(3)).splitlines() if "%" in line and "█" in line]
    lengths = [line.count("█") / (line.count("█") + line.count("·")) for line in lines]
    assert lengths == pytest.approx([2 / 3, 1 / 3], abs=0.03)


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in (80, 100, 120):
        assert max(map(len, text(made(6), width).splitlines())) <= width


def test_without_unicode_the_text_is_ascii() -> None:
    assert text(made(4), unicode=False).isascii()


def test_colours_are_all_there_is_to_strip() -> None:
    assert to_text(made()) != text(made())
    assert "\x1b" not in text(made())


def test_hundreds_of_latents_stay_readable() -> None:
    summary = text(made(300))
    assert f"and {299 - MAX_ROWS} more" in summary
    assert len(summary.splitlines()) < MAX_ROWS + 30


def test_values_that_are_not_finite_are_null() -> None:
    document = to_json(made(3, beta=float("nan"), beta_ci95=[float("nan")] * 2))
    json.dumps(document, allow_nan=False)
    assert document["beta"]["value"] is None
    assert document["beta"]["ci95"] is None
    assert document["latents"][2]["beta_recovered"] is None


def test_a_summary_without_a_known_beta_is_still_one() -> None:
    result = made(3, beta=float("nan"), beta_source="unknown")
    for name in [name for name in result.attrs if name.startswith("beta_")]:
        del result.attrs[name]
    assert "\nbeta not declared\n" in text(result)


def test_totals_are_sums_over_latents() -> None:
    document = to_json(made(4))
    assert document["summary"]["kl_total"] == 1 + 2 + 3 + 4
    assert document["summary"]["active"] == 3
    assert document["summary"]["latents"] == 4


def test_notes_and_output_are_passed_on() -> None:
    summary = text(made(3, output="run.h5"))
    assert "values read as they are" in summary
    assert summary.endswith("Result: run.h5")


# ------------------------------------------------------------------ the verdict


def reading(**changes: Any) -> Reading:
    fields: dict[str, Any] = {
        "active": 3,
        "latents": 4,
        "residuals": (0.01, -0.02, 0.03),
        "stationary_residuals": (0.0, 0.01, 0.0),
        "betas": (4.0, 4.1, 3.9),
        "beta": {"declared": 4.0, "recovered": 4.02, "source": "declared"},
        "cosine": 0.01,
        "data": "x.npy",
        "samples": 10_000,
    }
    return Reading(**{**fields, **changes})


def beta(declared: float | None, recovered: float | None) -> dict[str, Any]:
    return {"declared": declared, "recovered": recovered, "source": "declared"}


def test_a_sound_model_raises_no_doubt() -> None:
    found = verdict(reading())
    assert "norm + sigma^2 = 1" in found.meaning
    assert found.doubts == []


@pytest.mark.parametrize(
    ("changes", "meaning"),
    [
        ({"active": 0, "residuals": (), "betas": ()}, "No latent carries information"),
        ({"residuals": (0.4, 0.5, 0.3)}, "trust the stationary figures"),
        (
            {"residuals": (0.4, 0.5, 0.3), "stationary_residuals": (0.4, 0.3, 0.3)},
            "neither test of isometry holds",
        ),
        ({"residuals": (), "stationary_residuals": ()}, "3 of 4 latents carry the information."),
    ],
)
def test_meanings(changes: dict[str, Any], meaning: str) -> None:
    assert meaning in verdict(reading(**changes)).meaning


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"data": "prior"}, "No data was used"),
        ({"data": "prior:500"}, "No data was used"),
        ({"samples": 100}, "100 samples are few"),
        ({"cosine": 0.4}, "not orthogonal"),
        ({"betas": (2.0, 4.0, 6.0)}, "disagree about beta"),
        ({"beta": beta(1.0, 4.02)}, "agree on beta 4.02, not on the declared 1"),
        ({"beta": beta(None, 4.02)}, "the metric itself cannot be told"),
        ({"beta": beta(None, None)}, "beta is not known"),
        ({"beta": beta(1.0, -0.3)}, "not positive"),
    ],
)
def test_doubts(changes: dict[str, Any], doubt: str) -> None:
    assert any(doubt in found for found in verdict(reading(**changes)).doubts)
