"""Toy models of one shape and objective, trained in step as batched matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from isoprobe_trainers.common.batched import BatchedMLP
from isoprobe_trainers.common.training import generator
from isoprobe_trainers.toy.objectives import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from isoprobe_trainers.common.training import Schedule
    from isoprobe_trainers.toy.members import Member

ENCODER_WIDTHS = (128, 64)
DECODER_WIDTHS = (64, 128)
_WEIGHTS, _ORDER, _NOISE = range(3)


class Group:
    """Members of one architecture and objective, trained in step.

    Args:
        members: equal in latent size, objective, and shape of their data.
        data: inputs of each data spec, ``(N, m)`` float32, on the device.
        schedule: epochs, batch and learning rate.
        compile_step: compile the loss with ``torch.compile`` (CUDA graphs on cuda).
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Mapping[str, Tensor],
        schedule: Schedule,
        *,
        compile_step: bool = False,
    ) -> None:
        self.members, self.schedule = list(members), schedule
        used = sorted({m.data for m in members})
        self.rows = torch.cat([data[spec] for spec in used])
        self.samples, inputs = data[used[0]].shape
        self.offsets = [used.index(m.data) * self.samples for m in members]
        self.batches = self.samples // schedule.batch
        self.device = self.rows.device
        latents = members[0].latent_size
        objective = OBJECTIVES[members[0].objective]
        drawn = [generator(m.seed, _WEIGHTS) for m in members]
        heads = objective.heads * latents
        self.encoder = BatchedMLP((inputs, *ENCODER_WIDTHS, heads), drawn, self.device)
        self.decoder = BatchedMLP((latents, *DECODER_WIDTHS, inputs), drawn, self.device)
        self.objective = objective(members).to(self.device)
        self.order = [generator(m.seed, _ORDER) for m in members]
        self.noise = [generator(m.seed, _NOISE) for m in members]
        self.optimizer = torch.optim.Adam(list(self.parameters()), lr=schedule.lr, fused=True)
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self.parts: Callable[..., Tensor] = (
            torch.compile(self._parts, mode=mode) if compile_step else self._parts
        )

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every trained tensor, each with the member as its first axis."""
        for module in (self.encoder, self.decoder, self.objective):
            yield from module.parameters()

    def run_epoch(self, epoch: int) -> Tensor:
        """Train for one epoch; return the parts averaged over its steps, ``(P, E)``."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.schedule.rate(epoch)
        order, noise = self._shuffled(), self._drawn_noise()
        batch = self.schedule.batch
        total = torch.zeros_like(self.objective.weights)
        for start in range(0, self.batches * batch, batch):
            chosen = order[:, start : start + batch]
            x = self.rows.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)
            self.optimizer.zero_grad(set_to_none=True)
            parts = self.parts(x, noise[:, start : start + batch])
            # summed over members, whose gradients are independent of one another
            torch.autograd.backward(self.objective.total(parts).sum())
            self.optimizer.step()
            total += parts.detach()
        return total / self.batches

    def _parts(self, x: Tensor, noise: Tensor) -> Tensor:
        parts: Tensor = self.objective(self.encoder, self.decoder, x, noise)
        return parts

    def _shuffled(self) -> Tensor:
        orders = [
            torch.randperm(self.samples, generator=g) + offset
            for g, offset in zip(self.order, self.offsets, strict=True)
        ]
        return torch.stack(orders).to(self.device)

    def _drawn_noise(self) -> Tensor:
        shape = (self.batches * self.schedule.batch, self.members[0].latent_size)
        return torch.stack([torch.randn(shape, generator=g) for g in self.noise]).to(self.device)

    # ----------------------------------------------------------------- saving and restoring

    def state(self) -> dict[str, dict[str, Any]]:
        """What each member needs to go on, by member name, whatever its group."""
        tensors = list(self.parameters())
        moments = [self.optimizer.state[p] for p in tensors]
        return {
            member.name: {
                "weights": [_slice(p, e) for p in tensors],
                "mean": [_slice(s["exp_avg"], e) for s in moments],
                "square": [_slice(s["exp_avg_sq"], e) for s in moments],
                "step": float(moments[0]["step"]),
                "order": self.order[e].get_state(),
                "noise": self.noise[e].get_state(),
            }
            for e, member in enumerate(self.members)
        }

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from saved states of these members."""
        own = [states[m.name] for m in self.members]
        for index, parameter in enumerate(self.parameters()):

            def stacked(key: str, index: int = index) -> Tensor:
                return torch.stack([s[key][index] for s in own]).to(self.device)

            parameter.data.copy_(stacked("weights"))
            self.optimizer.state[parameter] = {
                "step": torch.tensor(own[0]["step"], device=self.device),
                "exp_avg": stacked("mean"),
                "exp_avg_sq": stacked("square"),
            }
        for e, state in enumerate(own):
            self.order[e].set_state(state["order"])
            self.noise[e].set_state(state["noise"])


def _slice(tensor: Tensor, index: int) -> Tensor:
    return tensor[index].detach().cpu().clone()
