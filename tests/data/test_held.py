"""Rows as people hold them in Python give the numbers of the array that they are, or one line."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.data.held import hold
from isoprobe.errors import DataError

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X, columns=["a", "b", "c"])


def array():
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(X, dims=("row", "feature"))


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return torch.from_numpy(X[index]), index % 2


class Rows(dict):
    """What a Hugging Face data set has, in small."""


class Hub:
    column_names = ("image", "label")

    def with_format(self, _):
        return self

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return {"image": X[index].tolist(), "label": 0}


def hugging_face():
    library = pytest.importorskip("datasets")
    return library.Dataset.from_dict({"image": X.tolist(), "label": [0] * 20})


def columns_of_hugging_face():
    library = pytest.importorskip("datasets")
    return library.Dataset.from_dict({c: X[:, k] for k, c in enumerate("abc")})


def ann_data(sparse=False):
    library = pytest.importorskip("anndata")
    csr = pytest.importorskip("scipy.sparse").csr_matrix
    cells = library.AnnData(csr(X) if sparse else X)
    cells.var_names = list("abc")
    return cells


class Sparse:
    """A matrix that is dense row by row only, as scipy's CSR."""

    shape = X.shape

    def tocsr(self):
        return self

    def toarray(self):
        return X

    def __getitem__(self, rows):
        return types.SimpleNamespace(toarray=lambda: X[rows])


def cells():
    names = [f"gene{i}" for i in range(3)]
    return types.SimpleNamespace(X=Sparse(), obs_names=range(20), var_names=names)


HELD = {
    "array": lambda: X,
    "tensor": lambda: torch.from_numpy(X),
    "gradient": lambda: torch.from_numpy(X).requires_grad_(),
    "sparse tensor": lambda: torch.from_numpy(X).to_sparse(),
    "list": X.tolist,
    "list of arrays": lambda: list(X),
    "list of tensors": lambda: list(torch.from_numpy(X)),
    "nothing masked": lambda: np.ma.masked_greater(X, 100),
    "DataFrame": frame,
    "xarray": array,
    "TensorDataset": lambda: torch.utils.data.TensorDataset(torch.from_numpy(X)),
    "Dataset": Pairs,
    "Subset": lambda: torch.utils.data.Subset(Pairs(), range(20)),
    "DataLoader": lambda: torch.utils.data.DataLoader(Pairs(), 8, shuffle=True),
    "DataLoader of a tensor": lambda: torch.utils.data.DataLoader(torch.from_numpy(X), 8),
    "Hugging Face": Hub,
    "Hugging Face's own": hugging_face,
    "Hugging Face's own, a column a value": columns_of_hugging_face,
    "AnnData": cells,
    "AnnData's own": ann_data,
    "AnnData's own, sparse": lambda: ann_data(sparse=True),
    "scipy": Sparse,
}


@pytest.mark.parametrize("name", HELD)
def test_rows_are_those_of_the_array(name):
    held = hold(HELD[name]())
    assert (len(held), held.shape) == (20, (3,))
    every = np.arange(20)
    np.testing.assert_array_equal(np.asarray(held.read(every), np.float32), X)
    np.testing.assert_array_equal(np.asarray(held.read(every[3:9:2]), np.float32), X[3:9:2])
    assert held.fingerprint() == hold(HELD[name]()).fingerprint()


def test_bfloat16_is_read_as_what_it_stands_for():
    narrow = torch.from_numpy(X).bfloat16()
    np.testing.assert_array_equal(hold(narrow).read(np.arange(20)), narrow.float().numpy())


def test_columns_are_recorded():
    assert any("a, b, c" in note for note in hold(frame()).notes)
    assert any("gene0, gene1" in note for note in hold(cells()).notes)


def texts():
    data = frame()
    data["name"] = "x"
    return data


def stream():
    library = pytest.importorskip("datasets")
    return library.IterableDataset.from_generator(lambda: iter([{"x": 1.0}]))


def splits():
    library = pytest.importorskip("datasets")
    return library.DatasetDict({"train": hugging_face()})


BAD = {
    "masked": (lambda: np.ma.masked_greater(X, 0.5), "masked"),
    "text column": (texts, "'name'"),
    "ragged": (lambda: [[1.0, 2.0], [3.0]], "row 1"),
    "empty list": (list, "no rows"),
    "text": (lambda: [["a", "b"]], "numbers"),
    "one axis": (lambda: X[:, 0], "shape"),
    "objects": (lambda: np.array([[object()]]), "numbers"),
    "iterator": (lambda: iter(X), "iterator"),
    "nothing": (object, "object"),
    "a stream of Hugging Face": (stream, "without a length"),
    "splits of Hugging Face": (splits, "several splits"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_what_it_is(name):
    make, word = BAD[name]
    with pytest.raises(DataError, match=word) as caught:
        hold(make())
    assert "\n" not in str(caught.value)


def test_a_missing_value_of_a_table_is_named_by_its_row():
    data = frame()
    data.loc[4, "b"] = float("nan")
    vae = isoprobe.VAE(
        lambda z: z.new_zeros(len(z), 3) + z,
        lambda x: isoprobe.Posterior(x, torch.ones_like(x)),
        (3,),
        (3,),
    )
    with pytest.raises(DataError, match="row 4"):
        isoprobe.analyze(vae, data, metric="sse", beta=1.0, analyses=["importance"])
