"""Maps against masks: regions, pixel AUROC and the overlap by region, against other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import isoprobe
from isoprobe.cli import main
from isoprobe.theory.localisation import pixel_auroc, region_overlap, regions


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 1.0, 0.0])
def test_regions_are_those_of_scipy(share: float) -> None:
    generator = np.random.default_rng(0)
    for size in ((1, 7), (12, 9), (40, 40)):
        mask = generator.uniform(size=size) < share
        found = regions(mask)
        theirs, count = ndimage.label(mask, np.ones((3, 3)))
        assert found.max() == count
        pairs = set(zip(found.ravel().tolist(), theirs.ravel().tolist(), strict=True))
        assert len(pairs) == count + (not mask.all())


def by_thresholds(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """The curve point by point, as its definition says."""
    points = [(0.0, 0.0)]
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        overlaps = [
            above[i][found == region].mean()
            for i, (found, count) in enumerate(labelled)
            for region in range(1, count + 1)
        ]
        points.append((above[~masks].mean(), np.mean(overlaps)))
    x, y = np.array(points).T
    grid = np.linspace(0, limit, 20_001)
    values = np.interp(grid, x, y)
    return float(((values[1:] + values[:-1]) / 2).mean())


@pytest.mark.parametrize("tied", [False, True])
def test_overlap_and_auroc_against_their_definitions(tied: bool) -> None:
    generator = np.random.default_rng(1)
    masks = ndimage.binary_dilation(generator.uniform(size=(6, 16, 16)) < 0.02, np.ones((1, 3, 3)))
    maps = masks + generator.normal(size=masks.shape)
    maps = np.round(maps, 1) if tied else maps
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    expected = by_thresholds(maps, masks, 0.3)
    assert region_overlap(maps, masks) == pytest.approx(expected, abs=2e-3)
    assert region_overlap(masks.astype(float), masks) == pytest.approx(1.0, abs=1e-12)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((1, 20, 20), bool)
    mask[0, :8, :8] = mask[0, 15, 15] = True
    large = mask & (np.indices((20, 20))[0] < 10)
    assert region_overlap(large.astype(float), mask) == pytest.approx(0.5 + 0.5 * 0.15, abs=0.01)
    assert pixel_auroc(large.astype(float), mask) > 0.98


def test_the_command_finds_a_planted_spot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
    from isoprobe_plugins.architectures.mlp import Mlp

    config = {
        "input_shape": [1, 8, 8], "encoder_widths": [8], "decoder_widths": [8], "latent_size": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    networks = Mlp().build(config)
    manifest = Manifest(FORMAT_VERSION, "mlp", config, 2, Objective("sse", 0.1))
    write_checkpoint(tmp_path / "m.safetensors", networks.encoder, networks.decoder, manifest)
    generator = np.random.default_rng(0)
    x = 0.1 * generator.normal(size=(60, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "old.npy", x[:30])
    masks = np.zeros((30, 8, 8), np.uint8)
    masks[::3, 2:4, 5:7] = 255
    x[30:, 0][masks > 0] += 1
    np.save(tmp_path / "new.npy", x[30:])
    np.save(tmp_path / "masks.npy", masks)
    model, result = str(tmp_path / "m.safetensors"), str(tmp_path / "r.h5")
    data = ["--data", str(tmp_path / "old.npy"), "--analysis", "anomaly", "--out", result]
    assert main(["analyze", model, *data]) == 0
    arguments = ["score", model, "--data", str(tmp_path / "new.npy"), "--reference", result]
    more = ["--map", "--out", str(tmp_path / "s.h5"), "--masks", str(tmp_path / "masks.npy")]
    drawn = ["--top", "3", "--pictures", str(tmp_path / "odd")]
    capsys.readouterr()
    said = ["--summary", str(tmp_path / "s.json")]
    assert main([*arguments, *more, *drawn, *said]) == 0
    assert "pixel AUROC 1.000" in capsys.readouterr().err
    found = json.loads((tmp_path / "s.json").read_text())["masks"]
    assert found["pixel_auroc"] > 0.999 and found["region_overlap"] > 0.99
    assert len(list((tmp_path / "odd").glob("row_*.png"))) == 3
    assert main([*arguments, "--masks", str(tmp_path / "masks.npy")]) == 1
    assert "--masks needs --map and --out FILE.h5" in capsys.readouterr().err
    np.save(tmp_path / "few.npy", masks[:4])
    again = [*more[:-1], str(tmp_path / "few.npy"), "--overwrite"]
    assert main([*arguments, *again]) == 1
    assert "4 masks of 8x8, and 30 maps of 8x8" in capsys.readouterr().err
    assert isoprobe.score(model, x[30:], result, by_input=True)["distortion_map"].shape == (
        30,
        1,
        8,
        8,
    )
