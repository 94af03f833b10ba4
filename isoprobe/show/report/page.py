"""Put the page together from templates; every text of a result is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import PluginError, ResultError
from isoprobe.results.whole import check_place, replacing
from isoprobe.show import plots
from isoprobe.show.report import facts
from isoprobe.show.report.explorer import explorer
from isoprobe.show.report.glossary import GLOSSARY
from isoprobe.show.report.strips import strips
from isoprobe.show.summary import to_json
from isoprobe.show.voice import voice

if TYPE_CHECKING:
    from isoprobe.results.reader import Result


def render(result: Result) -> str:
    """Return the report of a result as one HTML page that needs no network.

    Args:
        result: a complete result.

    Returns:
        The page. Its content security policy allows its own script and style and nothing else.
    """
    document, figures = to_json(result), _figures(result)
    walks = strips(result)
    return page(
        "report.html",
        "report.js",
        title=f"{document['model']}: latent space report",
        document=document,
        voice=voice(result),
        tiles=facts.tops(result, document),
        walks=walks,
        rows=[one for one in figures if one["group"] == "examples"],
        # walks that lead the page are not drawn a second time
        figures=[
            one
            for one in figures
            if one["group"] != "examples" and not (walks and one["name"] == "traversal")
        ],
        missing=_missing(result),
        explorer=explorer(result),
        table=facts.table(result),
        provenance=facts.provenance(result.attrs),
        notes=[str(note) for note in result.attrs.get("notes", ())],
        glossary=GLOSSARY,
    )


def write(text: str, path: Path, *, overwrite: bool = False, inputs: Iterable[object] = ()) -> None:
    """Write a page to a file, whole or not at all.

    Args:
        text: the page.
        path: the file.
        overwrite: replace an existing one.
        inputs: what was read to make it, which it may not replace.

    Raises:
        ResultError: if it exists already or cannot be written.
    """
    check_place(path, overwrite=overwrite, inputs=inputs)
    try:
        with replacing(path) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise ResultError(f"cannot write {path}: {error.strerror or error}") from error


def page(template: str, script: str, **content: Any) -> str:
    """Fill a template of this package.

    Args:
        template: file name of the template.
        script: file name of its script, the only one its policy lets run.
        **content: names the template uses.

    Returns:
        The page.
    """
    from markupsafe import Markup

    folder = resources.files("isoprobe.show.report").joinpath("templates")
    code = folder.joinpath(script).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return filled(
        template,
        # our own files, so no text of a result passes unescaped here
        script=Markup(code),  # noqa: S704
        style=Markup(folder.joinpath("page.css").read_text("utf-8")),  # noqa: S704
        script_digest=digest,
        **content,
    )


def filled(template: str, **content: Any) -> str:
    """Fill a template of this package; every text is escaped but for marked ones.

    Args:
        template: file name.
        **content: names the template uses.

    Returns:
        The text.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isoprobe.show.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = facts.number
    environment.filters["greek"] = facts.greek
    return environment.get_template(template).render(**content)


#: analyses that a report shows beside those of every run, and what each adds
ADDS = {
    "traversal": "walks along the latents",
    "examples": "rows beside their reconstructions",
    "coordinates": "samples in isometric coordinates",
    "rate-distortion": "the rate-distortion curve",
    "density": "densities",
}


def _missing(result: Result) -> str:
    """What would be added by which analyses; empty where nothing is missing."""
    names = [name for name in ADDS if name not in result]
    if not names:
        return ""
    said = ", ".join(f"{ADDS[name]} (--analysis +{name})" for name in names)
    return f"Not asked for in this run: {said}."


def _figures(result: Result) -> list[dict[str, Any]]:
    from markupsafe import Markup

    figures, known = [], plots.catalogue()
    for name in plots.available(result):
        drawn, failed = Markup(), ""
        try:
            # matplotlib escapes the texts it writes into an SVG
            drawn = Markup(plots.to_svg(plots.figure(result, name), name))  # noqa: S704
        except PluginError as error:  # the rest of the page is none the worse for it
            failed = str(error)
        entry = known[name]
        figures.append(
            {
                "name": name,
                "group": entry.needs.partition("/")[0],
                "title": entry.title,
                "caption": entry.caption,
                "svg": drawn,
                "failed": failed,
            }
        )
    return figures
