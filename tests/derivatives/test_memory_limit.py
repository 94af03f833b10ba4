"""A run adds no more memory than ``--memory`` allows, for few latents and for thousands."""

from __future__ import annotations

import itertools
import sys

import pytest

from isoprobe.derivatives.memory import plan
from tests.oracles import small_vae
from tests.processes import python

LIMIT = 64

# the peak of a first small run is what the libraries take; VmHWM starts afresh in each process
_RUN = """
import pathlib, re, sys
import numpy as np, torch
torch.set_num_threads(1)
import isoprobe
from isoprobe.contracts import VAE, Facts, Posterior

class Networks(torch.nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.groups = groups
        self.first, self.last = torch.nn.Linear(64, 10), torch.nn.Linear(10, 64)
    def decode(self, z):
        return torch.tanh(self.last(z.unflatten(1, (10, -1)).sin().sum(2)))
    def encode(self, x):
        mean = self.first(x).repeat_interleave(self.groups, 1)
        return Posterior(mean, torch.full_like(mean, 0.5))

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status).group(1)) / 1024

def run(latents, rows, memory):
    torch.manual_seed(0)
    net = Networks(latents // 10)
    facts = Facts(metric="sse", beta=1.0)
    vae = VAE(net.decode, net.encode, (64,), (latents,), module=net, facts=facts)
    x = np.random.default_rng(0).normal(size=(rows, 64)).astype("float32")
    isoprobe.analyze(vae, x, analyses=["isometry"], device="cpu", memory=memory).close()

latents, rows, memory = map(int, sys.argv[1:])
run(10, 8, 1 << 20)
before = peak()
run(latents, rows, memory)
print(peak() - before)
"""


def added(latents: int, rows: int, mebibytes: int) -> float:
    """Memory that a run adds at its peak in a process of its own, MiB."""
    done = python("-c", _RUN, str(latents), str(rows), str(mebibytes << 20))
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux alone")
@pytest.mark.parametrize(("latents", "rows"), [(10, 256), (250, 128), (4090, 24)])
def test_a_run_stays_within_the_limit(latents: int, rows: int) -> None:
    assert added(latents, rows, LIMIT) < LIMIT


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux alone")
def test_a_higher_limit_is_used() -> None:
    """Counter-test: the same run with sixteen times the limit takes more than the limit."""
    assert added(250, 128, 16 * LIMIT) > 2 * LIMIT


@pytest.mark.parametrize("latents", [10, 100, 1000, 16384])
def test_batch_and_chunk_shrink_with_the_limit(latents: int) -> None:
    vae = small_vae(latents=latents)
    plans = [plan(vae, vae.decode, 1 << bits) for bits in (20, 24, 28, 32)]
    for smaller, larger in itertools.pairwise(plans):
        assert smaller.batch <= larger.batch
        assert smaller.block * smaller.chunk <= larger.block * larger.chunk
    assert all(1 <= p.chunk <= latents and p.block <= p.batch for p in plans)
