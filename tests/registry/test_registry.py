"""The registry against distributions on disk: one answer to each question, or a name to blame."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from isoprobe.checkpoints.source import Source
from isoprobe.errors import (
    CheckpointError,
    DataError,
    IsoprobeError,
    MetricError,
    OptionError,
    PluginError,
)
from isoprobe.registry.discovery import KINDS, PluginWarning
from isoprobe.registry.lookup import Registry, installed
from tests.distributions import METRIC, entry_points, install

Install = Callable[..., None]
_counter = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of distributions that modules can be imported from."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def module_name() -> str:
    """A module name no other test has imported."""
    return f"isoprobe_test_plugin_{next(_counter)}"


def registry(folder: Path) -> Registry:
    return Registry(entry_points(folder))


def add_metric(folder: Path, distribution: str, name: str, entry: str | None = None) -> str:
    module = module_name()
    text = METRIC.format(name=name)
    install(folder, distribution, {entry or f"metric.{name}": module}, {module: text})
    return module


# ------------------------------------------------------------------ finding


def test_a_metric_of_another_distribution_is_found_by_name(folder: Path) -> None:
    add_metric(folder, "theirs", "plain")
    assert registry(folder).metric("plain").name == "plain"


def test_an_entry_point_without_a_kind_serves_every_kind_but_commands(folder: Path) -> None:
    add_metric(folder, "theirs", "plain", entry="anything")
    assert registry(folder).names("metric") == ["plain"]
    assert registry(folder).command_names() == []


def test_an_entry_point_may_name_a_class(folder: Path) -> None:
    module, text = module_name(), METRIC.format(name="plain").split("@hookimpl")[0]
    install(folder, "theirs", {"metric.plain": f"{module}:Plain"}, {module: text})
    found = registry(folder)
    assert found.metric("plain").name == "plain"
    assert found.names("metric") == ["plain"]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("entry", "words"),
    [("plain", "its own name begins with adapter"), ("adapter.plain", "no class derived")],
)
def test_a_class_of_another_kind_is_reported(folder: Path, entry: str, words: str) -> None:
    module, text = module_name(), METRIC.format(name="plain").split("@hookimpl")[0]
    install(folder, "theirs", {entry: f"{module}:Plain"}, {module: text})
    with pytest.warns(PluginWarning, match=words):
        assert registry(folder).names("adapter") == []


def test_only_the_entry_point_asked_for_is_imported(folder: Path) -> None:
    wanted = add_metric(folder, "one", "one")
    others = [add_metric(folder, "two", "two"), add_metric(folder, "three", "three", "anything")]
    registry(folder).metric("one")
    assert wanted in sys.modules
    assert not set(others) & set(sys.modules)


def test_other_kinds_are_not_imported(folder: Path) -> None:
    metric = add_metric(folder, "one", "one")
    assert registry(folder).names("adapter") == []
    assert metric not in sys.modules


def test_a_name_no_entry_point_declares_is_found_all_the_same(folder: Path) -> None:
    add_metric(folder, "theirs", "hidden", entry="metric.declared")
    assert registry(folder).metric("hidden").name == "hidden"


def test_names_are_sorted_whatever_the_order_of_installation(folder: Path) -> None:
    for name in ("zeta", "alpha", "mid"):
        add_metric(folder, f"dist-{name}", name)
    assert registry(folder).names("metric") == ["alpha", "mid", "zeta"]


# ------------------------------------------------------------------ clashes


def test_two_plugins_of_one_name_are_an_error_naming_both(folder: Path) -> None:
    add_metric(folder, "first-dist", "same")
    add_metric(folder, "second-dist", "same")
    with pytest.raises(PluginError, match="metric 'same'.*first-dist and second-dist"):
        registry(folder).metric("same")


def test_a_clash_leaves_other_names_usable(folder: Path) -> None:
    add_metric(folder, "first-dist", "same")
    add_metric(folder, "second-dist", "same")
    add_metric(folder, "third-dist", "other")
    assert registry(folder).metric("other").name == "other"


def test_a_clash_stands_in_the_listing_of_both(folder: Path) -> None:
    add_metric(folder, "first-dist", "same")
    add_metric(folder, "second-dist", "same")
    rows = registry(folder).listing()
    assert [row.distribution for row in rows] == ["first-dist", "second-dist"]
    assert all("first-dist and second-dist" in row.error for row in rows)


def test_one_module_under_several_entry_points_is_no_clash(folder: Path) -> None:
    module = module_name()
    entries = {"metric.plain": module, "metric.also": module}
    install(folder, "theirs", entries, {module: METRIC.format(name="plain")})
    assert registry(folder).names("metric") == ["plain"]


# ------------------------------------------------------------------ faults of plugins

MARK = "from isoprobe.hookspecs import hookimpl\n"

FAULTS = {
    "does not import": (
        "import a_package_nobody_has",
        r"ModuleNotFoundError.*a_package_nobody_has",
    ),
    "raises on import": ("raise RuntimeError('half installed')", "RuntimeError: half installed"),
    "leaves on import": ("raise SystemExit('no licence')", "SystemExit: no licence"),
    "has a syntax error": ("def (", "SyntaxError"),
    "misspells a hook": (
        MARK + "@hookimpl\ndef isoprobe_metric(): return []",
        "isoprobe_metric'.*did you mean 'isoprobe_metrics'",
    ),
    "misspells a hook, unmarked": (
        "def isoprobe_metricss(): return []",
        "isoprobe_metricss'.*did you mean 'isoprobe_metrics'",
    ),
    "forgets the mark": ("def isoprobe_metrics(): return []", "lacks the @hookimpl mark"),
    "takes an argument no hook has": (
        MARK + "@hookimpl\ndef isoprobe_metrics(config): return []",
        "does not fit its specification.*config",
    ),
    "returns no list": (
        MARK + "@hookimpl\ndef isoprobe_metrics(): return 3",
        "isoprobe_metrics fails: TypeError",
    ),
    "returns an instance of nothing": (
        MARK + "@hookimpl\ndef isoprobe_metrics(): return ['bce']",
        "'bce', which is no class derived from isoprobe.contracts.Metric",
    ),
    "returns a class of another kind": (
        MARK + "from isoprobe.contracts import Adapter\n"
        "@hookimpl\ndef isoprobe_metrics(): return [Adapter]",
        "no class derived from isoprobe.contracts.Metric",
    ),
    "leaves a method out": (
        MARK + "from isoprobe.contracts import Metric\n"
        "class Half(Metric):\n    name = 'half'\n@hookimpl\ndef isoprobe_metrics(): return [Half]",
        "does not define distortion",
    ),
    "has no name": (
        METRIC.replace('name = "{name}"', "").replace("{name}", "nameless"),
        "which has no name",
    ),
    "is a wrapper": (
        MARK + "@hookimpl(wrapper=True)\ndef isoprobe_metrics():\n    return (yield)",
        "is a wrapper",
    ),
    "was written for another interface": (
        "ISOPROBE_INTERFACE = 0\n" + METRIC.format(name="old"),
        "written for plugin interface 0; this isoprobe offers 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_blamed_by_name_and_the_rest_works(folder: Path, fault: str) -> None:
    text, message = FAULTS[fault]
    module = module_name()
    install(folder, "faulty-dist", {"metric.faulty": module}, {module: text})
    add_metric(folder, "sound-dist", "sound")
    plugins = registry(folder)
    with pytest.warns(PluginWarning, match=f"'metric.faulty' of faulty-dist.*{message}"):
        assert plugins.names("metric") == ["sound"]
    row = next(row for row in plugins.listing() if row.error)
    assert (row.kind, row.name, row.distribution) == ("metric", "faulty", "faulty-dist")


def test_a_fault_is_reported_once(folder: Path) -> None:
    module = module_name()
    install(folder, "faulty", {"metric.a": module, "metric.b": module}, {module: "import nothere"})
    plugins = registry(folder)
    with pytest.warns(PluginWarning) as caught:
        plugins.names("metric")
        plugins.names("metric")
    assert len(caught) == 1


def test_asking_for_a_broken_plugin_says_what_broke(folder: Path) -> None:
    module = module_name()
    entries = {"metric.another": module, "metric.wanted": module}
    install(folder, "faulty-dist", entries, {module: "import nothere"})
    with pytest.warns(PluginWarning), pytest.raises(PluginError, match="No module named 'nothere'"):
        registry(folder).metric("wanted")


# ------------------------------------------------------------------ questions without an answer


def test_an_unknown_metric_comes_with_the_nearest_name(folder: Path) -> None:
    add_metric(folder, "theirs", "plain")
    with pytest.raises(MetricError, match=r"no metric 'plian'; did you mean 'plain'\?"):
        registry(folder).metric("plian")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gaussian:sigma=1", "has no option 'sigma'; did you mean 'sigma2'"),
        (
            "gaussian:sigma2=wide",
            "option 'sigma2' of metric 'gaussian' needs a number; found 'wide'",
        ),
        ("gaussian:sigma2", "an option is written key=value; found 'sigma2'"),
        ("gaussian:sigma2=1,sigma2=2", "given twice"),
        ("sse:sigma2=1", "metric 'sse' has no option 'sigma2'.*takes no options"),
    ],
)
def test_a_wrong_option_of_a_metric_says_what_it_takes(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        installed().metric(spec)


def test_options_reach_the_metric_as_numbers() -> None:
    assert installed().metric("gaussian:sigma2=0.25").options() == {"sigma2": 0.25}


def test_a_file_nobody_reads_is_described_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "notes.bin"
    path.write_text("just a text")
    with pytest.raises(CheckpointError, match="a text file, which no adapter reads: name the"):
        Registry().adapter_for(Source(path))


TWO_ADAPTERS = """
from isoprobe.contracts import Adapter
from isoprobe.hookspecs import hookimpl

class Eager(Adapter):
    summary = "reads everything"

    def matches(self, source):
        return True

    def load(self, source, options):
        raise NotImplementedError

class First(Eager):
    name = "first"

class Second(Eager):
    name = "second"

@hookimpl
def isoprobe_adapters():
    return [First, Second]
"""


def test_two_adapters_that_match_are_an_error_naming_both(folder: Path, tmp_path: Path) -> None:
    module = module_name()
    install(folder, "eager", {"adapter.both": module}, {module: TWO_ADAPTERS})
    (tmp_path / "file").write_bytes(b"anything")
    plugins = registry(folder)
    with pytest.raises(PluginError, match="'first' of eager and 'second' of eager.*adapter"):
        plugins.adapter_for(Source(tmp_path / "file"))
    assert plugins.adapter_for(Source(tmp_path / "file"), "second").name == "second"


def test_an_adapter_that_fails_to_match_is_blamed_and_the_others_are_asked(
    folder: Path, tmp_path: Path
) -> None:
    module = module_name()
    text = TWO_ADAPTERS.replace(
        'name = "first"', 'name = "first"\n    def matches(self, source): return source.nothing'
    )
    install(folder, "hasty-dist", {"adapter.both": module}, {module: text})
    (tmp_path / "file").write_bytes(b"anything")
    with pytest.warns(PluginWarning, match="hasty-dist: 'first' fails to match: AttributeError"):
        assert registry(folder).adapter_for(Source(tmp_path / "file")).name == "second"


def test_a_clash_elsewhere_does_not_hide_what_is_wrong_here(folder: Path) -> None:
    add_metric(folder, "first-dist", "same")
    add_metric(folder, "second-dist", "same")
    with pytest.raises(MetricError, match="no metric 'smae'; did you mean 'same'"):
        registry(folder).metric("smae")


def test_data_that_no_source_opens_lists_the_sources() -> None:
    with pytest.raises(DataError, match="nowhere/at-all.*no source knows it"):
        installed().data("nowhere/at-all")


# ------------------------------------------------------------------ what ships


def test_every_built_in_plugin_works_and_has_a_summary() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = Registry().listing()
    assert [row for row in rows if row.error] == []
    assert [row for row in rows if not row.summary or not row.version] == []


def test_every_built_in_entry_point_names_a_plugin_of_its_kind() -> None:
    plugins = Registry()
    found = {(row.kind, row.name) for row in plugins.listing() if row.distribution == "isoprobe"}
    declared = {
        (o.kind, o.name) for o in plugins._discovery.origins if o.distribution == "isoprobe"
    }
    assert declared == found


def test_kinds_and_hooks_belong_together() -> None:
    from isoprobe import hookspecs

    specified = {name for name in vars(hookspecs) if name.startswith("isoprobe_")}
    assert {kind.hook for kind in KINDS.values()} == specified


def test_every_error_of_the_registry_is_one_a_user_can_act_on() -> None:
    for ask in (Registry().metric, Registry().analysis, Registry().architecture):
        with pytest.raises(IsoprobeError):
            ask("nothing-of-this-name")
