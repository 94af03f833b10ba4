"""What was promised is still there, or its removal has a line of reason."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import pytest

from tests.house import inventory

PROMISED = json.loads(inventory.FILE.read_text("utf-8"))
#: ``kind: {what: reason}`` for everything that went on purpose
REMOVED = json.loads(Path(__file__).with_name("removals.json").read_text("utf-8"))


def missing(kind: str, before: set[str], now: set[str]) -> list[str]:
    """Promised and gone, without a reason."""
    return sorted(before - now - REMOVED[kind].keys())


def test_commands_options_and_arguments() -> None:
    before, now = PROMISED["commands"], inventory.commands()

    def flat(commands):
        return set(commands) | {
            f"{name} {part}"
            for name, command in commands.items()
            for part in command["options"] + command["arguments"]
        }

    assert missing("commands", flat(before), flat(now)) == []


def test_plugins() -> None:
    before, now = PROMISED["plugins"], inventory.plugins()
    for kind, names in before.items():
        assert missing("plugins", set(names), set(now[kind])) == []


def test_variables_and_their_dimensions(tmp_path: Path) -> None:
    before, now = PROMISED["variables"], inventory.variables(tmp_path)
    assert missing("variables", set(before), set(now)) == []
    changed = {name for name in before.keys() & now.keys() if name and before[name] != now[name]}
    assert sorted(changed - REMOVED["variables"].keys()) == []
    assert missing("attributes", set(before[""]), set(now[""])) == []


@pytest.mark.parametrize("name", PROMISED["shown"])
def test_names_that_the_documentation_showed(name: str) -> None:
    if name in REMOVED["shown"] or name.startswith("isoprobe_plugin_example"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert found(name)


def found(dotted: str) -> bool:
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            place = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            place = getattr(place, part)
        return True
    return False


def test_an_old_path_warns_and_gives_the_same_objects() -> None:
    from isoprobe.checkpoints.source import Source

    with pytest.warns(DeprecationWarning, match=r"isoprobe\.source is now isoprobe\.checkpoints"):
        importlib.reload(importlib.import_module("isoprobe.source"))
    assert importlib.import_module("isoprobe.source").Source is Source


def test_a_package_that_was_a_module_finds_its_old_names() -> None:
    import isoprobe.statistics
    from isoprobe.statistics.moments import Moments

    with pytest.warns(DeprecationWarning, match=r"isoprobe\.statistics\.Moments is now"):
        assert isoprobe.statistics.Moments is Moments
    with pytest.raises(AttributeError, match="no attribute 'Momenta'"):
        _ = isoprobe.statistics.Momenta


def test_every_reason_is_a_sentence() -> None:
    reasons = [reason for kind in REMOVED.values() for reason in kind.values()]
    assert all(len(reason.split()) > 3 for reason in reasons)
