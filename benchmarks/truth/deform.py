"""List the deformations: faults planted in sound models, each with the causes it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.truth import faults_declared, faults_latents, faults_reading

if TYPE_CHECKING:
    from benchmarks.truth.subject import Deformation

__all__ = ["DEFORMATIONS"]

DEFORMATIONS: list[Deformation] = [
    *faults_declared.declared(),
    *faults_declared.of_data(),
    *faults_reading.reading(),
    *faults_latents.fit(),
    *faults_latents.odd_latents(),
    *faults_latents.randomness(),
]
