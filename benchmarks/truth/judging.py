"""Read a verdict: the one place of the bench that knows how isoprobe says what it found.

:func:`judged` gives level, names of findings and text; :func:`causes` says which causes, in the
bench's own words, such a text names. Both change when the judge's words do, and nothing else here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

#: what a fault may come from, in the words of the bench
CAUSES = {
    "beta": "the declared beta or its units",
    "metric": "the declared metric",
    "data": "other data, or other preprocessing of them",
    "head": "the encoder's heads are read in another way than they were trained",
    "decoder": "the decoder's layers are read in another way than they were trained",
    "fit": "encoder and decoder do not fit each other, in some latents or in all",
    "rotation": "latents are rotated against the decoder's own axes",
    "objective": "the training objective was no beta-VAE of this metric",
    "training": "training is not finished",
    "idle": "idle latents rest elsewhere than at the prior",
    "random": "the model's answers are random, or depend on the batch",
    "curved": "the decoder bends within one sigma",
    "collapsed": "no latent is used",
}
LEVELS = ("sound", "undecided", "accused", "refused")

#: finding -> causes that it names
NAMED: dict[str, frozenset[str]] = {
    "collapsed": frozenset({"collapsed", "head", "data", "beta"}),
    "scale-head": frozenset({"head"}),
    "beta": frozenset({"beta"}),
    "metric": frozenset({"metric"}),
    "undertrained": frozenset({"training", "objective"}),
    "data": frozenset({"data", "training"}),
    "curved": frozenset({"curved"}),
    "decoder-dead": frozenset({"fit", "decoder"}),
    "encoder-mismatched": frozenset({"fit"}),
    "no-better-than-mean": frozenset({"head", "decoder", "data"}),
}

#: pattern in an error, or in the text of a finding that has no entry above -> causes
PHRASES: dict[str, frozenset[str]] = {
    r"needs values (in|of|from)|outside|scale it|range": frozenset({"data"}),
    r"twice|differ(s|ent) between|not deterministic|random|in train(ing)? mode": frozenset(
        {"random"}
    ),
    r"depends? on the (rest of the )?batch|in company": frozenset({"random"}),
    r"scale head|heads? (is|are) (mis)?read": frozenset({"head"}),
    r"rotat": frozenset({"rotation"}),
    r"objective": frozenset({"objective"}),
    r"do(es)? not (fit|belong)": frozenset({"fit"}),
    r"preprocessing|other data": frozenset({"data"}),
    r"either beta|declared beta|units": frozenset({"beta"}),
    r"the metric is|trained with": frozenset({"metric"}),
}


class Readable(Protocol):
    """What is read of a result."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Root attributes."""

    def groups(self) -> list[str]:
        """Names of the groups."""

    def __getitem__(self, group: str) -> Mapping[str, Any]:
        """Variables of a group."""


def judged(result: Readable) -> tuple[str, list[str], str]:
    """Read the verdict of a result.

    Args:
        result: what ``isoprobe.analyze`` returns.

    Returns:
        Level, one of :data:`LEVELS`; names of the findings; everything said, as one text.
    """
    group = result["diagnosis"]
    names = [str(name) for name in group["finding"].values] if "finding" in group else []
    texts = [str(t) for part in ("evidence", "advice") if part in group for t in group[part].values]
    baseline = result.attrs.get("mean_input_distortion")
    reached = float(result["overview"]["distortion_transform_mean"].values)
    if baseline is not None and reached >= baseline:
        names.append("no-better-than-mean")
    return ("accused" if names else "sound"), names, ". ".join(texts)


def causes(names: Iterable[str], text: str) -> frozenset[str]:
    """Return the causes that findings name.

    Args:
        names: of the findings.
        text: what was said; looked at for findings that :data:`NAMED` does not know, and for
            errors, which have no name.
    """
    names = list(names)
    known = [NAMED[name] for name in names if name in NAMED]
    if len(known) < len(names) or not names:
        known += [named for phrase, named in PHRASES.items() if re.search(phrase, text, re.I)]
    return frozenset().union(*known)


def outcome(level: str, named: frozenset[str], right: frozenset[str], *, harmless: bool) -> str:
    """Classify the verdict on a planted fault.

    Args:
        level: of the verdict.
        named: causes it names.
        right: causes of the fault.
        harmless: that nothing is wrong is right too.

    Returns:
        ``named``, ``sound``, ``other`` (an accusation without the cause) or ``undecided``.
    """
    if level == "sound":
        return "named" if harmless else "sound"
    if named & right:
        return "named"
    if level == "undecided":
        return "undecided"
    return "other"
