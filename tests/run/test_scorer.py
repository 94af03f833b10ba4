"""A scorer gives the bytes of ``isoprobe score``, whatever the batch and however it is cut."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from torch import nn

import isoprobe
from isoprobe import Scorer
from isoprobe.contracts import VAE
from isoprobe.errors import DataError, OptionError, ResultError
from isoprobe.run import scorer as scorers
from tests.kills import model_and_data
from tests.oracles import small_vae
from tests.processes import python

NEW = ("score", "distortion", "rate", "p_value", "flag_alpha", "flag_quantile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its reference, and the rows they were made of."""
    path = tmp_path_factory.mktemp("scorer")
    model_and_data(path)
    out = path / "r.h5"
    data = str(path / "rows.npy")
    isoprobe.analyze(path / "m.safetensors", data, analyses=["anomaly"], out=out).close()
    return path


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).random((1003, 12)).astype("float32")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer(folder / "m.safetensors", folder / "r.h5")


@pytest.fixture(scope="module")
def expected(folder: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    return isoprobe.score(folder / "m.safetensors", rows, folder / "r.h5")


def frame(rows: np.ndarray) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=[f"x{k}" for k in range(rows.shape[1])])


def require_same(found: object, expected: dict[str, np.ndarray], part: slice) -> None:
    for name in NEW:
        values = np.asarray(found[name])  # type: ignore[index]
        assert values.dtype == expected[name].dtype, name
        assert values.tobytes() == expected[name][part].tobytes(), name


def test_an_array_gives_the_columns_of_score(
    scorer: Scorer, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    found = scorer(rows)
    assert set(found) == set(expected) - {"row"}
    require_same(found, expected, slice(None))


def test_tables_keep_their_columns_and_get_new_ones(
    scorer: Scorer, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    pandas_ = frame(rows).set_index(np.arange(len(rows))[::-1])
    found = scorer(pandas_)
    assert list(found.columns) == [*pandas_.columns, *NEW]
    assert found.index.equals(pandas_.index)
    require_same(found, expected, slice(None))
    arrow = pyarrow.Table.from_pandas(frame(rows))
    for batch in (arrow, arrow.combine_chunks().to_batches()[0]):
        found = scorer(batch)
        assert type(found) is type(batch)
        assert found.column_names == [*arrow.column_names, *NEW]
        require_same(
            {
                n: found.column(n).to_numpy(zero_copy_only=False)
                if isinstance(found, pyarrow.RecordBatch)
                else found.column(n).to_numpy()
                for n in NEW
            },
            expected,
            slice(None),
        )
    columns = {name: frame(rows)[name].to_numpy() for name in frame(rows)}
    found = scorer(columns)
    assert list(found) == [*columns, *NEW]
    require_same(found, expected, slice(None))


def test_inputs_are_chosen_by_name_and_the_rest_is_left_alone(
    folder: Path, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    names = [f"x{k}" for k in range(12)]
    table = frame(rows)[names[::-1]].assign(id=[f"row {k}" for k in range(len(rows))])
    found = Scorer(folder / "m.safetensors", folder / "r.h5", columns=names)(table)
    assert found["id"].tolist() == table["id"].tolist()
    require_same(found, expected, slice(None))


@pytest.mark.parametrize("kind", ["objects", "lists", "tensors"])
def test_a_column_of_arrays_is_the_input(
    scorer: Scorer, rows: np.ndarray, expected: dict[str, np.ndarray], kind: str
) -> None:
    if kind == "objects":
        batch: object = pandas.DataFrame({"x": list(rows)})
    elif kind == "lists":
        batch = pyarrow.table({"x": pyarrow.FixedSizeListArray.from_arrays(rows.ravel(), 12)})
    else:
        tensors = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(rows)
        batch = pyarrow.table({"x": tensors})
    require_same(scorer(batch), expected, slice(None))


@pytest.mark.parametrize("sizes", [(1, 2, 3, 5, 31, 961), (500, 503), (33, 970)])
def test_cuts_decide_no_bit(
    scorer: Scorer, rows: np.ndarray, expected: dict[str, np.ndarray], sizes: tuple[int, ...]
) -> None:
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        require_same(scorer(rows[part]), expected, part)
        start += size


def test_cuts_decide_no_bit_of_a_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(8 * 49, 8)
            self.up = nn.Sequential(
                nn.Linear(4, 8 * 49), nn.Unflatten(1, (8, 7, 7)), nn.ConvTranspose2d(8, 1, 4, 2, 1)
            )

    net = Net()

    def encode(x: torch.Tensor) -> isoprobe.Posterior:
        mean, spread = net.head(net.down(x)).chunk(2, dim=1)
        return isoprobe.Posterior(mean, (spread / 2).exp())

    images = np.random.default_rng(0).random((300, 1, 14, 14)).astype("float32")
    vae = VAE(decode=net.up, encode=encode, input_shape=(1, 14, 14), latent_shape=(4,))
    vae.module = net
    out = tmp_path / "r.h5"
    isoprobe.analyze(vae, images, metric="sse", beta=1.0, analyses=["anomaly"], out=out).close()
    scorer = Scorer(vae, out)
    whole = scorer(images)
    for cut in (1, 3, 40, 299):
        for part in (slice(0, cut), slice(cut, None)):
            require_same(scorer(images[part]), whole, part)


def test_an_iterator_gives_an_iterator(
    scorer: Scorer, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    def parts() -> Iterator[pandas.DataFrame]:
        yield frame(rows[:100])
        yield frame(rows[100:])

    found = list(scorer(parts()))
    require_same(pandas.concat(found), expected, slice(None))


def test_no_rows_give_the_types_of_some(scorer: Scorer, rows: np.ndarray) -> None:
    for batch in (rows, frame(rows), pyarrow.Table.from_pandas(frame(rows))):
        some, none = scorer(batch[:40]), scorer(batch[:0])
        kinds = [
            {name: getattr(part[name], "dtype", getattr(part[name], "type", None)) for name in NEW}
            for part in (some, none)
        ]
        assert kinds[0] == kinds[1]
        assert len(none["score"]) == 0


def test_it_travels_before_and_after_its_first_batch(
    folder: Path, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    fresh = Scorer(folder / "m.safetensors", folder / "r.h5")
    sent = pickle.dumps(fresh)
    assert len(sent) < 2000
    fresh(rows[:50])
    assert pickle.dumps(fresh) == sent
    require_same(pickle.loads(sent)(rows), expected, slice(None))


def test_making_one_opens_no_file() -> None:
    script = "import sys, isoprobe; isoprobe.Scorer; isoprobe.Scorer('no.pt', 'no.h5')"
    python("-c", script)


def test_a_process_loads_a_model_once(
    folder: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    whole = scorers.load
    monkeypatch.setattr(scorers, "load", lambda *a, **k: loaded.append(a) or whole(*a, **k))
    scorers._held.cache_clear()
    sent = pickle.dumps(Scorer(folder / "m.safetensors", folder / "r.h5"))
    for _ in range(3):
        pickle.loads(sent)(rows[:10])
    assert len(loaded) == 1
    again = (folder / "m.safetensors").read_bytes()
    (folder / "m.safetensors").write_bytes(again)  # another file of that name
    pickle.loads(sent)(rows[:10])
    assert len(loaded) == 2


def test_modes_and_numbers_of_the_caller_are_as_they_were(tmp_path: Path) -> None:
    vae = small_vae(dtype=torch.float32)
    data = np.random.default_rng(0).normal(size=(200, 9))
    out = tmp_path / "r.h5"
    isoprobe.analyze(vae, data, metric="sse", beta=1.0, analyses=["anomaly"], out=out).close()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():
        Scorer(vae, out, threads=1)(data)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 3}, "a scorer has no setting 'samples'"),
        ({"fdr": 0.1}, "a scorer has no setting 'fdr'"),
        ({"apha": 0.1}, "did you mean 'alpha'"),
        ({"alpha": 2.0}, "^alpha lies between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_it_is_made(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        Scorer(folder / "m.safetensors", folder / "r.h5", **settings)


def test_batches_that_do_not_fit_are_refused_in_one_line(folder: Path, scorer: Scorer) -> None:
    def refusal(batch: object, by: Scorer = scorer) -> str:
        with pytest.raises(DataError) as caught:
            by(batch)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    good = frame(np.full((3, 12), 0.5))
    assert "a list" in refusal([1, 2])
    assert "column 'id' of the batch holds object; expected numbers" in refusal(
        good.assign(id=["a", "b", "c"]).astype({"id": object})
    )
    assert "has a column 'score' already" in refusal({"score": np.full((3, 12), 0.5)})
    missing = Scorer(folder / "m.safetensors", folder / "r.h5", columns=["x0", "y"])
    assert "no column 'y'" in refusal(good, missing)
    assert "the batch" in refusal(good[["x0", "x1"]])
    ragged = pandas.DataFrame({"x": [np.zeros(2), np.zeros(3)]})
    assert "different shapes" in refusal(ragged)
    assert "row 1 of the batch" in refusal(
        np.where(np.arange(24).reshape(2, 12) == 13, np.nan, 0.5)
    )


def test_another_model_and_a_reference_without_scores_are_refused(
    folder: Path, tmp_path: Path, rows: np.ndarray
) -> None:
    with pytest.raises(ResultError, match="belongs to another model"):
        Scorer(small_vae(), folder / "r.h5")(rows)
    out = tmp_path / "plain.h5"
    isoprobe.analyze(folder / "m.safetensors", str(folder / "rows.npy"), out=out).close()
    with pytest.raises(ResultError, match="has no anomaly scores"):
        Scorer(folder / "m.safetensors", out)(rows)
