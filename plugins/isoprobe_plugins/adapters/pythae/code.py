"""Load a pythae model whose networks are pickled code, by pythae itself where it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.extras import need
from isoprobe_plugins.adapters.objects.calling import said, working_folder_first
from isoprobe_plugins.adapters.objects.options import ModelOptions
from isoprobe_plugins.adapters.objects.trusting import require_trust
from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import VAE
    from isoprobe_plugins.adapters.declared.declaration import Loss


class _Networks(nn.Module):
    """pythae's encoder and decoder in the form the contract asks for."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance."""
        answer = self.encoder(x)
        return answer.embedding, answer.log_covariance

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        x_hat: Tensor = self.decoder(z).reconstruction
        return x_hat


def load_by_code(
    source: Source, input_shape: tuple[int, ...], latent_size: int, loss: Loss | None, adapter: str
) -> VAE:
    """Load a folder through pythae, which runs the code in it.

    Args:
        source: the folder, trusted.
        input_shape: shape of one input.
        latent_size: number of latents.
        loss: the training loss, where known.
        adapter: name of the adapter at work.

    Returns:
        The model.

    Raises:
        CheckpointError: when it is not trusted, or its code fails.
    """
    require_trust(
        source,
        "its networks are pickled code (encoder.pkl, decoder.pkl)",
        "build them yourself with --adapter factory --option target=module:function",
    )
    models = need("pythae.models", "pythae", "a pythae model with networks of its own")
    try:
        with working_folder_first():
            model = models.AutoModel.load_from_folder(str(source.path)).eval()
    except Exception as error:  # a stranger's code may fail in any way
        raise CheckpointError(f"{source.path}: pythae cannot load it: {said(error)}") from error
    shape = "x".join(map(str, input_shape))
    settings = ModelOptions(head="logvar", input_shape=shape, input_range="0,1")
    vae = vae_from_object(_Networks(model), settings, str(source.path), source, adapter=adapter)
    if loss is None:
        return vae
    beta = loss.summed_beta(vae.input_size, latent_size)
    said_by = None if beta is None else f"{source.path}: model_config.json"
    return vae.with_facts(metric=loss.metric, beta=beta, beta_source=said_by)
