"""The plugin guide: its signatures are the code's, and its examples obey the laws."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe import hookspecs, testing
from isoprobe.contracts import VAE, Metric
from isoprobe.errors import IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe.testing import Law, check_adapter, check_analysis, check_metric
from isoprobe.testing.models import small_data, small_vae
from isoprobe_plugins.architectures.linear import linear_vae

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text()
EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.3])
BETA = 0.1


def example(kind: str) -> str:
    """Source of an example in the guide."""
    found = re.search(rf"<!-- example: {kind} -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


def module(kind: str) -> ModuleType:
    """An example of the guide, executed."""
    made = ModuleType(f"guide_{kind}")
    exec(compile(example(kind), f"docs/plugins.md:{kind}", "exec"), vars(made))
    return made


def lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


# ------------------------------------------------------------------ signatures


def hooks() -> dict[str, str]:
    """Hooks of the code: signature and sentence."""
    return {
        f"{name}{inspect.signature(value)}".replace("'", ""): inspect.getdoc(value) or ""
        for name, value in vars(hookspecs).items()
        if name.startswith("isoprobe_")
    }


def test_the_guide_has_every_hook_with_its_signature_and_sentence() -> None:
    rows = re.findall(r"^\| `(isoprobe_\w+\(.*?\) -> .*?)` \| (.*) \|$", GUIDE, re.MULTILINE)
    assert dict(rows) == hooks()


def test_the_guide_names_every_optional_part_of_a_metric() -> None:
    section = GUIDE.split("What a metric may add:")[1].split("\n## ")[0]
    own = {name for name in vars(Metric) if not name.startswith("_")}
    known = own - {"name", "summary", "reference", "distortion", "options", "spec"}
    assert {name for name in known if f"`{name}" not in section.replace(", `", " `")} == set()


def test_the_guide_names_every_kit() -> None:
    kits = {name for name in testing.__all__ if name.startswith("check_")}
    assert set(re.findall(r"^\| `(check_\w+)`", GUIDE, re.MULTILINE)) == kits


def test_the_guide_states_the_interface_version() -> None:
    assert f"ISOPROBE_INTERFACE = {hookspecs.INTERFACE}" in GUIDE


# ------------------------------------------------------------------ examples


def test_the_metric_takes_at_most_20_lines_and_the_adapter_about_40() -> None:
    assert lines(example("metric")) <= 20
    assert lines(example("adapter")) <= 40


METRIC = module("metric")
LAWS: list[Law] = [
    *check_metric(METRIC.Likelihood()),
    *check_metric(METRIC.Likelihood(sigma=0.2)),
    *check_analysis(module("analysis").Centre),
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_metric_and_analysis_obey_their_laws(law: Law) -> None:
    law()


def test_the_adapter_obeys_its_laws(tmp_path: Path) -> None:
    gain = np.sqrt(EIGENVALUES - BETA / 2)
    document = {
        "log_std": (0.5 * np.log(BETA / 2 / EIGENVALUES)).tolist(),
        "encoder": np.diag(gain / EIGENVALUES).tolist(),
        "decoder": np.diag(gain).tolist(),
    }
    path = tmp_path / "model.json"
    path.write_text(json.dumps(document))
    for law in check_adapter(module("adapter").Affine(), path):
        law()


# ------------------------------------------------------------------ what 20 lines are worth


class BareCrossEntropy(Metric):
    """Binary cross entropy, nothing but its distortion."""

    name = "bare-bce"

    def distortion(self, x: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
        return -(x * x_hat.log() + (1 - x) * (1 - x_hat).log()).flatten(1).sum(1)


def linear() -> tuple[VAE, np.ndarray]:
    rows = np.random.default_rng(0).standard_normal((400, 4)) * np.sqrt(EIGENVALUES)
    return linear_vae(torch.diag(torch.from_numpy(EIGENVALUES)), BETA, 3), rows


def nonlinear() -> tuple[VAE, np.ndarray]:
    return small_vae(), small_data(200).numpy()


@pytest.mark.parametrize(
    ("derived", "built_in", "make"),
    [
        (METRIC.Likelihood(sigma=0.5), "gaussian:sigma2=0.25", linear),
        (METRIC.Likelihood(sigma=0.5), "gaussian:sigma2=0.25", nonlinear),
        (BareCrossEntropy(), "bce", nonlinear),
    ],
    ids=["gaussian, linear", "gaussian, nonlinear", "bce, nonlinear"],
)
def test_a_bare_distortion_gives_the_isometry_of_the_built_in_closed_form(
    derived: Metric, built_in: str, make
) -> None:
    found = {}
    for name, metric in (("derived", derived), ("built in", installed().metric(built_in))):
        vae, rows = make()
        with isoprobe.analyze(vae, rows, metric=metric, beta=0.3, analyses=["isometry"]) as result:
            group = result["isometry"]
            found[name] = {key: group[key].values for key in group}
    assert found["derived"].keys() == found["built in"].keys()
    for key, expected in found["built in"].items():
        np.testing.assert_allclose(
            found["derived"][key], expected, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(expected))
        )


def test_options_of_the_guides_metric_are_typed() -> None:
    from isoprobe.registry.specs import construct

    assert construct(METRIC.Likelihood, {"sigma": "0.5"}, "metric").sigma == 0.5
    with pytest.raises(IsoprobeError, match="needs a number"):
        construct(METRIC.Likelihood, {"sigma": "wide"}, "metric")


def test_the_guide_imports_no_torch_at_the_top_of_a_module() -> None:
    for kind in ("metric", "adapter", "analysis"):
        tops = re.findall(r"^(?:import|from) (\w+)", example(kind), re.MULTILINE)
        assert set(tops) & {"torch", "h5py", "matplotlib"} == set()
