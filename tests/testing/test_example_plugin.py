"""The example distribution, installed and exercised as a third party's would be."""

from __future__ import annotations

import json
from pathlib import Path

from tests.environments import Environment

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "isoprobe-plugin-example"


def test_the_example_installs_is_listed_and_passes_its_own_tests(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.install(EXAMPLE)

    rows = json.loads(environment.run("-m", "isoprobe", "plugins", "--json"))
    own = {
        f"{row['kind']}.{row['name']}": row["error"]
        for row in rows
        if row["distribution"] == "isoprobe-plugin-example"
    }
    assert own == {
        "metric.spectral": "",
        "adapter.affine-json": "",
        "analysis.effective-size": "",
    }

    report = environment.run(
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(EXAMPLE / "tests"),
        cwd=tmp_path,
    )
    assert " passed" in report
    assert "failed" not in report
