"""Fetch a checkpoint of the Hugging Face hub: ``hf://owner/name`` or ``hf://owner/name/file``.

Only safetensors and JSON are fetched unless the user trusts the repository. The hub's own library
does the rest: cache, login, mirrors, working offline. No other address is opened.
"""

from __future__ import annotations

import re
from pathlib import Path

from isoprobe.errors import CheckpointError

#: a path of the command line has lost one of the slashes
_HUB = re.compile(r"^hf:/{1,2}(?P<rest>.*)\Z", re.DOTALL)
_OTHER = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?P<rest>.+)$", re.IGNORECASE)
_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*\Z")
_SAFE = (".safetensors", ".json")


def fetched(path: str | Path, *, trusted: bool = False) -> tuple[Path, str]:
    """Return where a checkpoint lies on this machine, fetched from the hub where that is named.

    Args:
        path: as typed.
        trusted: take other files than safetensors and JSON.

    Returns:
        Its path, and where it came from in words; empty words for a path that is local.

    Raises:
        CheckpointError: for an address of another kind, or one that cannot be had.
    """
    text = str(path)
    hub = _HUB.match(text)
    if hub is not None:
        return _from_hub(hub["rest"], trusted=trusted)
    other = _OTHER.match(text)
    if other is not None and not Path(text).exists():
        url = f"{other['scheme']}://{other['rest']}"
        raise CheckpointError(
            f"isoprobe opens no addresses but hf://owner/name; fetch {url} yourself, as with "
            f"'curl -LO {url}', and give the file"
        )
    return Path(path), ""


def _from_hub(rest: str, *, trusted: bool) -> tuple[Path, str]:
    parts = rest.strip("/").split("/")
    if len(parts) < 2 or not all(_NAME.match(part) for part in parts):
        raise CheckpointError(
            f"{f'hf://{rest}'!r} is written hf://owner/name or hf://owner/name/file.safetensors"
        )
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    if file and not trusted and not file.endswith(_SAFE):
        raise CheckpointError(
            f"hf://{rest}: only .safetensors files are fetched, since others may run code when "
            "they are read; if you trust its author, add --trust"
        )
    path = _download(repository, file, None if trusted else [f"*{end}" for end in _SAFE])
    revision = next((p.name for p in (path, *path.parents) if p.parent.name == "snapshots"), "")
    told = f"from the hub: {repository}" + (f" at {revision[:12]}" if revision else "")
    return (path if file else _one_of(path)), told


def _download(repository: str, file: str, allowed: list[str] | None) -> Path:
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise CheckpointError(
            f"hf://{repository} needs huggingface_hub: pip install 'isoprobe[hub]'"
        ) from error
    try:
        if file:
            return Path(hub.hf_hub_download(repository, file))
        return Path(hub.snapshot_download(repository, allow_patterns=allowed))
    except Exception as error:  # the network and the hub may fail in any way
        lines = str(error).strip().splitlines() or [""]
        raise CheckpointError(
            f"hf://{repository}{'/' if file else ''}{file} cannot be had: "
            f"{type(error).__name__}: {lines[0]}"
        ) from error


def _one_of(folder: Path) -> Path:
    """The only weights of a folder where nothing beside them describes them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not weights:
        raise CheckpointError(f"{folder} holds no .safetensors; name a file, and add --trust")
    return weights[0] if len(files) == len(weights) == 1 else folder
