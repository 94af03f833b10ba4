"""Hold the options of the adapter ``onnx``.

Annotations are evaluated here, since the parser of options reads them.
"""

from dataclasses import dataclass

from isoprobe_plugins.adapters.objects.two_files import PairOptions


@dataclass(frozen=True, kw_only=True)
class OnnxOptions(PairOptions):
    """What a user may say about ONNX graphs.

    Attributes:
        mean: tensor of the posterior's mean, where one graph holds a whole VAE.
        scale: of its scale there.
        latent: at which the decoder begins there.
        recon: of the reconstruction there.
    """

    mean: str | None = None
    scale: str | None = None
    latent: str | None = None
    recon: str | None = None

    def cut(self) -> dict[str, str]:
        """Return the names that are told of where to cut a graph."""
        names = {
            "mean": self.mean, "scale": self.scale, "latent": self.latent, "recon": self.recon,
        }  # fmt: skip
        return {key: name for key, name in names.items() if name is not None}
