"""Good, broken and rival distributions, really installed side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.distributions import METRIC, install
from tests.environments import Environment
from tests.processes import python

MARK = "from isoprobe.hookspecs import hookimpl\n"
MODULES = {
    "sound": METRIC.format(name="sound"),
    "rival-one": METRIC.format(name="contested"),
    "rival-two": METRIC.format(name="contested"),
    "broken": "import a_package_nobody_has\n",
    "misspelt": MARK + "@hookimpl\ndef isoprobe_metric():\n    return []\n",
    "wrong-return": MARK + "@hookimpl\ndef isoprobe_metrics():\n    return ['bce']\n",
    "outdated": "ISOPROBE_INTERFACE = 0\n" + METRIC.format(name="outdated"),
}
ENTRIES = {name: f"metric.{name}" for name in MODULES} | {
    "rival-one": "metric.contested",
    "rival-two": "metric.contested",
}
EXPECTED = {
    "sound": "",
    "rival-one": "registered by both dist-rival-one and dist-rival-two; uninstall one of them",
    "rival-two": "registered by both dist-rival-one and dist-rival-two; uninstall one of them",
    "broken": "does not import: ModuleNotFoundError: No module named 'a_package_nobody_has'",
    "misspelt": "'isoprobe_metric', which is no hook; did you mean 'isoprobe_metrics'?",
    "wrong-return": "'bce', which is no class derived from isoprobe.contracts.Metric",
    "outdated": "was written for plugin interface 0; this isoprobe offers 1",
}


def project(folder: Path, name: str) -> Path:
    """A project that pip can install."""
    root, module = folder / f"dist-{name}", f"dist_{name.replace('-', '_')}"
    root.mkdir(parents=True)
    (root / f"{module}.py").write_text(MODULES[name])
    (root / "pyproject.toml").write_text(
        dedent(f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "dist-{name}"
        version = "1.2.3"
        [project.entry-points.isoprobe]
        "{ENTRIES[name]}" = "{module}"
        [tool.hatch.build.targets.wheel]
        only-include = ["{module}.py"]
        """)
    )
    return root


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """All of them installed in one environment."""
    folder = tmp_path_factory.mktemp("plugins")
    environment = Environment(folder / "environment")
    environment.install(*[project(folder, name) for name in MODULES])
    return environment


def attempt(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(environment.python), "-m", "isoprobe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_listing_blames_each_fault_on_its_distribution(environment: Environment) -> None:
    done = attempt(environment, "plugins", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["distribution"]: row for row in json.loads(done.stdout)}
    for name, error in EXPECTED.items():
        row = rows[f"dist-{name}"]
        assert error in row["error"], name
        assert bool(row["error"]) == bool(error)
        assert (row["kind"], row["version"]) == ("metric", "1.2.3")


def test_the_sound_one_works_among_them_and_in_silence(environment: Environment) -> None:
    done = attempt(environment, "check", "metric.sound")
    assert (done.returncode, done.stderr) == (0, "")
    assert "broken" not in done.stdout


def test_a_contested_name_is_an_error_that_names_both(environment: Environment) -> None:
    done = attempt(environment, "check", "metric.contested")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: metric 'contested': registered by both dist-rival-one and dist-rival-two; "
        "uninstall one of them\n"
    )


@pytest.mark.parametrize("name", ["broken", "outdated"])
def test_asking_for_a_faulty_one_says_what_is_wrong(environment: Environment, name: str) -> None:
    done = attempt(environment, "check", f"metric.{name}")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"Error: plugin 'metric.{name}' of dist-{name}:")
    assert EXPECTED[name].partition(";")[0] in last


SHADOW = """
import click
from isoprobe.hookspecs import hookimpl

@click.command()
def analyze():
    "Take over."

@hookimpl
def isoprobe_commands():
    return [analyze]
"""


def test_a_command_of_a_name_isoprobe_has_is_marked_and_does_not_run(tmp_path: Path) -> None:
    install(tmp_path, "usurper", {"command.analyze": "usurper"}, {"usurper": SHADOW})
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "isoprobe", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    rows = json.loads(run("plugins", "--json"))
    row = next(row for row in rows if row["distribution"] == "usurper")
    assert "isoprobe has a command of that name" in row["error"]
    assert "Take over" not in run("analyze", "--help")


def test_two_hundred_plugins_are_found_and_none_is_imported_without_need(tmp_path: Path) -> None:
    for number in range(200):
        module = f"crowd_{number}"
        install(
            tmp_path,
            f"crowd-{number}",
            {f"metric.crowd-{number}": module},
            {module: METRIC.format(name=f"crowd-{number}")},
        )
    script = dedent("""
        import sys
        from isoprobe.registry.lookup import installed
        assert len(installed()._discovery.names("metric")) > 200
        assert installed().metric("crowd-7").name == "crowd-7"
        print([name for name in sys.modules if name.startswith("crowd_")])
    """)
    done = python("-c", script, PYTHONPATH=str(tmp_path))
    assert done.stdout == "['crowd_7']\n"
