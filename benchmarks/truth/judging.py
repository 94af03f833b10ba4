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

#: a cause as the judge writes it -> causes of the bench
NAMED: dict[str, frozenset[str]] = {
    "beta": frozenset({"beta"}),
    "metric": frozenset({"metric"}),
    "data": frozenset({"data"}),
    "prior": frozenset({"objective"}),
    "objective": frozenset({"objective"}),
    "own-beta": frozenset({"objective"}),
    "fixed-scale": frozenset({"objective"}),
    "training": frozenset({"training"}),
    "scale-head": frozenset({"head"}),
    "encoder": frozenset({"head"}),
    "decoder": frozenset({"decoder"}),
    "decoder-dead": frozenset({"fit", "decoder"}),
    "mismatch": frozenset({"fit"}),
    "permuted": frozenset({"fit"}),
    "scaled": frozenset({"fit"}),
    "sign": frozenset({"fit"}),
    "sigma": frozenset({"fit", "idle"}),
    "idle": frozenset({"idle"}),
    "rotated": frozenset({"rotation"}),
    "collapsed": frozenset({"collapsed"}),
    "curved": frozenset({"curved"}),
}

#: pattern in an error, or in the text of a finding that has no entry above -> causes
PHRASES: dict[str, frozenset[str]] = {
    r"needs values (in|of|from)|outside|scale it|range": frozenset({"data"}),
    r"twice|differ(s|ent) between|not deterministic|random|in train(ing)? mode": frozenset(
        {"random"}
    ),
    r"depends? on the (rest of the )?batch|in company": frozenset({"random"}),
    r"too far from what the model was trained on": frozenset({"data"}),
    r"if they are logits": frozenset({"decoder"}),
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
        Level, one of :data:`LEVELS`; causes that findings and remarks name; all that was said.
    """
    group = result["diagnosis"]
    names, texts = [], []
    for kind in ("finding", "remark"):
        if kind not in group:
            continue
        parts = ("causes",) if kind == "finding" else ("remark_causes",)
        names += [c for part in parts for text in group[part].values for c in str(text).split(", ")]
        said = ("evidence", "advice") if kind == "finding" else ("remark_evidence",)
        texts += [str(text) for part in said for text in group[part].values]
    level = {"not sound": "accused"}.get(str(group["level"].values), str(group["level"].values))
    return level, names, ". ".join(texts)


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
