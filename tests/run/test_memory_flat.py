"""Twenty times the samples, the same peak memory: nothing is held for all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import python

FEW, MANY = 10_000, 200_000

# not ru_maxrss, which starts from what the parent process held
_PEAK = """
import pathlib, re
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text()).group(1))
"""
_RUN = (
    """
import sys
import numpy as np, torch
torch.set_num_threads(1)
import isoprobe
from isoprobe.contracts import VAE, Dataset
from isoprobe_plugins.architectures.mlp import Mlp
from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.contracts import Facts

class Generated(Dataset):
    name, shape, dtype = "generated", (4,), "float32"
    def __len__(self): return int(sys.argv[1])
    def read(self, indices):
        return np.sin(np.outer(indices + 1.0, [0.1, 0.23, 0.37, 0.71])).astype("float32")
    def fingerprint(self): return sys.argv[1]

torch.manual_seed(0)
config = {"input_shape": [4], "encoder_widths": [8], "decoder_widths": [8], "latent_size": 2}
networks = Mlp().build(config)
vae = vae_from_networks(networks, Facts(metric="sse", beta=1.0), name="m", adapter="a", sha256="")
with isoprobe.analyze(vae, Generated(), samples=None, device="cpu", batch_size=2048,
                      analyses=["isometry", "importance"], out=sys.argv[2]) as result:
    assert result.attrs["samples"] == int(sys.argv[1])
"""
    + _PEAK
)


def peak(samples: int, folder: Path) -> int:
    """Peak resident memory of one run in a process of its own, KiB."""
    done = python("-c", _RUN, str(samples), folder / f"{samples}.h5")
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux alone")
def test_peak_memory_does_not_grow_with_samples(tmp_path: Path) -> None:
    few, many = peak(FEW, tmp_path), peak(MANY, tmp_path)
    assert many < 1.1 * few


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux alone")
def test_the_measure_sees_what_is_held() -> None:
    """Counter-test: a process that holds 64 MiB more shows at least 60 of them."""
    code = "import sys, numpy as np; kept = np.ones(int(sys.argv[1]) << 17)" + _PEAK
    sizes = [int(python("-c", code, mib).stdout) for mib in ("1", "65")]
    assert sizes[1] - sizes[0] > 60 << 10
