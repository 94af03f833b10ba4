"""Build priors with weights of their own: a Gaussian, a mixture, posteriors of pseudo-inputs.

They belong to the decoder, as p(z) does, so a checkpoint keeps them beside it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

#: the tensors of each kind, and whether it can do without
TENSORS = {
    "gaussian": {"means": True, "scales": True},
    "mixture": {"means": True, "scales": True, "shares": False},
    "vamp": {"pseudo_inputs": True, "shares": False},
}


class PriorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prior other than N(0, I).

    Attributes:
        kind: ``gaussian`` (diagonal), ``mixture`` of these, or ``vamp``: the mean of the posteriors
            of pseudo-inputs.
        components: how many there are; 1 for ``gaussian``.
        form: what the scales are, see :data:`isoprobe_plugins.heads.HEADS`.
        shares: of the components: ``equal``, or from ``logits`` or ``probabilities``.
        squeeze: what keeps pseudo-inputs in the range of inputs: ``none``, ``sigmoid``, or
            ``clamp`` to [0, 1].
        weights: names of the tensors in a foreign file.
        by: column of the condition whose class has a component of its own, for ``gaussian``.
    """

    kind: Literal["gaussian", "mixture", "vamp"]
    components: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1
    form: str = "logvar"
    shares: Literal["equal", "logits", "probabilities"] = "equal"
    squeeze: Literal["none", "sigmoid", "clamp"] = "none"
    weights: dict[str, str] = {}
    by: Annotated[int, msgspec.Meta(ge=0, le=64)] | None = None

    @property
    def words(self) -> str:
        """What it is."""
        if self.kind == "vamp":
            return f"the posteriors of {self.components} pseudo-inputs"
        if self.by is not None:
            return "a Gaussian of each class"
        return f"a mixture of {self.components} Gaussians"
