"""Change the code in one place at a time; a test must fail each time.

``python -m tests.house.mutation`` draws a sample of mutants of theory, statistics and analyses by a
fixed seed, and runs for each the tests that concern its file, in a process forked from one that
has torch and pytest imported already, so that a mutant costs the tests alone. It prints who lived,
and fails when fewer than the wanted share died.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
SEED, COUNT, SHARE = 20261126, 400, 0.9
#: a mutant that runs longer than this loops for ever
TIMEOUT = 120
TABLE = "tests/theory/test_every_variable.py"
FORMULAS = "tests/theory/test_formulas.py"
WRITTEN = "tests/theory/test_written_out.py"
LAWS = "tests/theory/test_laws.py"
_KL_PARTS = "tests/theory/test_kl_parts.py"
_COUNTED = "tests/statistics/test_written_out.py"
_PARTS = "tests/plugins/test_analyses_written_out.py"
_ANALYSES = "plugins/isoprobe_plugins/analyses"
#: files that are mutated, by how their paths begin, and the tests that hold them, quickest first
TESTS = {
    "isoprobe/statistics/moments.py": ["tests/statistics/test_statistics.py", TABLE],
    "isoprobe/statistics/draws.py": [_COUNTED, "tests/statistics/test_randomness.py"],
    "isoprobe/statistics/assisted.py": [_COUNTED, "tests/statistics/test_regression.py"],
    "isoprobe/statistics/jackknife.py": [_COUNTED, "tests/statistics/test_statistics.py"],
    "isoprobe/statistics/medians.py": ["tests/statistics/test_medians.py"],
    "isoprobe/statistics/quantiles.py": [_COUNTED, "tests/statistics/test_statistics.py"],
    "isoprobe/theory/detection.py": [WRITTEN, "tests/theory/test_quality.py", TABLE],
    "isoprobe/theory/tolerances.py": ["tests/theory/judge/test_judge.py"],
    "isoprobe/theory/conditions.py": [WRITTEN, "tests/theory/test_conditions.py"],
    "isoprobe/theory/covariance.py": [WRITTEN, "tests/theory/test_covariance.py"],
    "isoprobe/theory/pooling.py": [WRITTEN, "tests/theory/test_conditions.py"],
    "isoprobe/theory/judge/": ["tests/theory/judge"],
    "isoprobe/theory/isometric.py": [
        "tests/theory/test_scales.py",
        "tests/theory/test_isometric.py",
    ],
    "isoprobe/theory/density.py": [WRITTEN, FORMULAS, TABLE],
    "isoprobe/theory/differences.py": [LAWS, "tests/run/test_against.py"],
    "isoprobe/theory/discoveries.py": [
        LAWS,
        WRITTEN,
        "tests/run/test_score_decisions.py",
    ],
    "isoprobe/theory/drift.py": [LAWS, WRITTEN, "tests/run/test_drift.py"],
    "isoprobe/theory/geodesics.py": [
        "tests/theory/test_paths.py",
        "tests/theory/test_geodesics.py",
    ],
    "isoprobe/theory/relaxation.py": ["tests/theory/test_paths.py", LAWS],
    "isoprobe/theory/information.py": [
        "tests/theory/test_labels.py",
        "tests/theory/test_information.py",
    ],
    "isoprobe/theory/linear_probe.py": [
        "tests/theory/test_labels.py",
        "tests/theory/test_information.py",
    ],
    "isoprobe/theory/joint_information.py": ["tests/theory/test_mixtures.py", _KL_PARTS],
    "isoprobe/theory/kl_parts.py": [
        "tests/theory/test_mixtures.py",
        _KL_PARTS,
        "tests/plugins/test_parts.py",
    ],
    "isoprobe/theory/mixtures.py": ["tests/theory/test_mixtures.py", _KL_PARTS],
    "isoprobe/theory/likelihood.py": [
        "tests/theory/test_supports.py",
        "tests/plugins/test_likelihoods.py",
        "tests/plugins/test_metrics_counts.py",
    ],
    "isoprobe/theory/localisation.py": ["tests/theory/test_localisation.py"],
    "isoprobe/theory/maps.py": ["tests/plugins/test_parts.py", "tests/theory/test_tensors.py"],
    "isoprobe/theory/tensors.py": ["tests/theory/test_tensors.py", WRITTEN],
    "isoprobe/theory/truncation.py": [
        "tests/theory/test_tensors.py",
        "tests/plugins/test_parts.py",
    ],
    "isoprobe/theory/prior.py": [WRITTEN, "tests/plugins/test_priors.py"],
    "isoprobe/theory/scores.py": [LAWS, "tests/run/test_other_scores.py"],
    "isoprobe/theory/weighted.py": ["tests/theory/test_tails.py", "tests/theory/test_weighted.py"],
    "isoprobe/theory/": [WRITTEN, FORMULAS, LAWS, TABLE],
    "isoprobe/probe/shared.py": [TABLE],
    "isoprobe/probe/beta.py": [TABLE],
    "isoprobe/probe/overview.py": [TABLE],
    f"{_ANALYSES}/isometry.py": [_PARTS, LAWS, TABLE],
    f"{_ANALYSES}/importance.py": [TABLE],
    f"{_ANALYSES}/coordinates.py": [TABLE, "tests/plugins/test_coordinates.py"],
    f"{_ANALYSES}/traversal.py": [_PARTS, LAWS, TABLE],
    f"{_ANALYSES}/density.py": [_PARTS, TABLE, "tests/plugins/test_density.py"],
    f"{_ANALYSES}/rate_distortion.py": [TABLE],
    f"{_ANALYSES}/anomaly.py": [_PARTS, TABLE, "tests/plugins/test_anomaly.py"],
    f"{_ANALYSES}/conditions.py": [_PARTS, "tests/theory/test_conditions.py"],
    f"{_ANALYSES}/diagnosis.py": ["tests/theory/test_diagnosis.py", TABLE],
}
#: imported once, before the first fork; ours are not, as a mutant stands in for one of them
WARM = ("torch", "numpy", "scipy.stats", "scipy.optimize", "sklearn.metrics", "h5py", "pytest")
#: whether a test fails is asked and not how: plain asserts need no rewriting of each file
OPTIONS = ["-x", "-q", "--assert=plain", "--no-header", "-o", "addopts="]
OPTIONS += ["-p", "no:cacheprovider", "-p", "no:logging", "-p", "no:unraisableexception"]
_WARM_MAYBE = ("hypothesis", "torch.func", "click", "pluggy", "safetensors.torch", "msgspec")
#: changes that no test noticed once, each of which must be noticed whatever the sample
NAMED = (
    (f"{_ANALYSES}/isometry.py", "norm_of(response_sd, beta)", "norm_of(response_se, beta)"),
    (f"{_ANALYSES}/importance.py", "rough_importance(inverse.se,", "rough_importance(inverse.sd,"),
    (
        "isoprobe/theory/density.py",
        "- rate - gaussian_log_normaliser(active, beta)",
        "- rate + gaussian_log_normaliser(active, beta)",
    ),
    ("isoprobe/theory/rate.py", "(kl - entropy)[active]", "(entropy - kl)[active]"),
    ("isoprobe/theory/importance.py", "IDLE_VARIANCE = 0.8", "IDLE_VARIANCE = 0.85"),
    ("isoprobe/theory/importance.py", "MIXED_SHARE = (0.05, 0.95)", "MIXED_SHARE = (0.5, 0.95)"),
    ("isoprobe/theory/tolerances.py", '"residual": Tolerance(0.2', '"residual": Tolerance(0.21'),
    ("isoprobe/theory/tolerances.py", '"gain": Tolerance(0.1', '"gain": Tolerance(0.11'),
    ("isoprobe/theory/tolerances.py", '"beta": Tolerance(0.12', '"beta": Tolerance(0.13'),
    ("isoprobe/theory/tolerances.py", '"dead": Tolerance(0.05', '"dead": Tolerance(0.06'),
)
#: changes that change no result: the file, part of the line, what of it is changed and to what
#: (anything when empty), and why nothing can notice
EQUIVALENT = (
    ("isoprobe/theory/pooling.py", "safe = Estimate(", "", "of no weight and an infinite error"),
    (
        "isoprobe/theory/scores.py",
        "anomalous: np.ndarray, seed: int = 0",
        "",
        "the value of a seed",
    ),
    ("isoprobe/theory/joint_information.py", "_STREAM =", "", "the value of a seed"),
    ("isoprobe/theory/information.py", "_STREAM =", "", "the value of a seed"),
    ("isoprobe/theory/linear_probe.py", "_STREAM =", "", "the value of a seed"),
    ("isoprobe/theory/joint_information.py", "_ELEMENTS =", "", "the size of a block"),
    ("isoprobe/theory/mixtures.py", "_ROWS =", "", "the size of a block"),
    ("isoprobe/theory/likelihood.py", "_AT_ONCE =", "", "the size of a block"),
    ("isoprobe/statistics/assisted.py", "1e-12 *", "1e-12  ->  2e-12", "any floor, if it is small"),
    ("isoprobe/statistics/assisted.py", "1e-12 *", "1  ->  2", "any floor, if it is small"),
    ("isoprobe/theory/information.py", "del self.found[2:]", "", "more kept than is read"),
    ("isoprobe/theory/likelihood.py", "_NOTHING =", "1e-60  ->  2e-60", "as little as nothing"),
    (
        "isoprobe/theory/likelihood.py",
        "_REACH, _STEPS =",
        "481  ->  962",
        "a finer sum is the same",
    ),
    (
        "isoprobe/theory/likelihood.py",
        "_REACH, _STEPS =",
        "481  ->  482",
        "a finer sum is the same",
    ),
    ("isoprobe/theory/linear_probe.py", "max_iter=", "", "a cap that no search reaches"),
    (
        "isoprobe/theory/linear_probe.py",
        "tolerance_grad=",
        "1e-05  ->  2e-05",
        "the tolerance of a search",
    ),
    (
        "isoprobe/theory/linear_probe.py",
        "tolerance_change=",
        "1e-09  ->  2e-09",
        "the tolerance of a search",
    ),
    ("isoprobe/theory/linear_probe.py", "history_size=", "", "what a search keeps, not its end"),
    ("isoprobe/theory/geodesics.py", "QUICK =", "", "how much is spent on a path, not its end"),
    ("isoprobe/theory/geodesics.py", "THOROUGH =", "60", "a cap that no search reaches"),
    (
        "isoprobe/theory/geodesics.py",
        "THOROUGH =",
        "0.0001  ->  0.0002",
        "the tolerance of a search",
    ),
    (
        "isoprobe/theory/geodesics.py",
        "tolerance: float = 1e-3",
        "0.001  ->  0.002",
        "the tolerance of a search",
    ),
    ("isoprobe/theory/relaxation.py", "_MEMORY =", "", "what a search keeps, not its end"),
    ("isoprobe/theory/relaxation.py", "_SHORTEST =", "1e-10  ->  2e-10", "when a search gives up"),
    (
        "isoprobe/theory/relaxation.py",
        "1e-4 * promise",
        "0.0001  ->  0.0002",
        "far below what a step wins",
    ),
)
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    Attributes:
        path: of the file, from the root.
        line: where it is changed.
        change: in words.
        source: the changed file.
    """

    path: str
    line: int
    change: str
    source: str


def changes(path: str) -> list[tuple[str, int, int]]:
    """Every change to a file, as its path, the number of the place, and the variant."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return [
        (path, number, variant)
        for number, place in enumerate(_places(tree))
        for variant in range(_variants(place))
    ]


def mutant(path: str, number: int, variant: int) -> Mutant:
    """The file with one of its changes made."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    node = list(_places(tree))[number]
    before, line = ast.unparse(node), getattr(node, "lineno", 0)
    _change(node, variant)
    source = ast.unparse(ast.fix_missing_locations(tree))
    return Mutant(path, line, f"{before}  ->  {ast.unparse(node)}"[:160], source)


def named() -> list[Mutant]:
    """The mutants that must die whatever the sample.

    Raises:
        ValueError: for a change to what is no longer there.
    """
    found = []
    for path, before, after in NAMED:
        text = (ROOT / path).read_text("utf-8")
        if text.count(before) != 1:
            raise ValueError(f"{path} has '{before}' {text.count(before)} times: name it anew")
        line = text[: text.index(before)].count("\n") + 1
        found.append(Mutant(path, line, f"{before}  ->  {after}", text.replace(before, after)))
    return found


def unfounded() -> list[str]:
    """Reasons that no line asks for, as it is not there once."""
    return [
        f"{path} has no one line with '{part}'"
        for path, part, _, _ in EQUIVALENT
        if sum(part in line for line in (ROOT / path).read_text("utf-8").splitlines()) != 1
    ]


def reason(mutant: Mutant) -> str:
    """Why a mutant computes what the code does; empty where it may not."""
    line = (ROOT / mutant.path).read_text("utf-8").splitlines()[mutant.line - 1]
    before = mutant.change.partition("  ->  ")[0]
    for path, part, changed, why in EQUIVALENT:
        if path == mutant.path and part in line and changed in {"", before, mutant.change}:
            return why
    return ""


def _places(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may be changed: what computes, and neither types, words nor refusals."""
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, (ast.Raise, ast.JoinedStr)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.keyword) and node.arg == "strict":  # a refusal of zip's
                continue
            if isinstance(node, ast.Assign) and "TypeVar" in ast.unparse(node.value):
                continue
            if _variants(node):
                yield node
            yield from _places(node)


def _variants(node: ast.AST) -> int:
    """How many ways there are to change a node."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            return int(type(op) in _OPERATORS)
        case ast.Compare(ops=[op]):
            return int(type(op) in _COMPARISONS)
        case ast.Constant(value=bool()):
            return 1
        case ast.Constant(value=int() | float()):
            return 2
        case ast.UnaryOp(op=ast.USub() | ast.Not()) | ast.BoolOp() | ast.IfExp() | ast.If():
            return 1
        case _:
            return 0


def _change(node: ast.AST, variant: int) -> None:
    """Change a node in place."""
    match node:
        case ast.BinOp() | ast.AugAssign():
            node.op = _OPERATORS[type(node.op)]()
        case ast.Compare():
            node.ops = [_COMPARISONS[type(node.ops[0])]()]
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            assert isinstance(node.value, (int, float))
            node.value = node.value + 1 if variant == 0 else node.value * 2 or -1
        case ast.UnaryOp(op=ast.USub()):
            node.op = ast.UAdd()
        case ast.UnaryOp(op=ast.Not()):
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.IfExp() | ast.If():
            node.test = ast.UnaryOp(ast.Not(), node.test)


def files() -> list[str]:
    """The files that are mutated."""
    found: set[str] = set()
    for place in TESTS:
        found |= {str(p.relative_to(ROOT)) for p in ROOT.glob(f"{place}*") if p.suffix == ".py"}
        folder = ROOT / place
        if folder.is_dir():
            found |= {str(p.relative_to(ROOT)) for p in folder.glob("*.py")}
    return sorted(found)


def tests_of(path: str) -> list[str]:
    """The tests that hold a file: those of the longest beginning of its path."""
    return TESTS[max((place for place in TESTS if path.startswith(place)), key=len)]


def sample(count: int, seed: int, only: str = "") -> list[Mutant]:
    """Draw mutants of all files alike, each equally likely."""
    every = [change for path in files() if only in path for change in changes(path)]
    print(f"{len(every)} mutants of {len(files())} files", flush=True)
    chosen = random.Random(seed).sample(range(len(every)), min(count, len(every)))
    return [mutant(*every[number]) for number in chosen]  # any first part is a sample too


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutant in place of the module that it stands for."""

    def __init__(self, mutant: Mutant) -> None:
        parts = Path(mutant.path).with_suffix("").parts
        self.name = ".".join(parts[1:] if parts[0] in {"plugins", "trainers"} else parts)
        self.mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the mutant alone."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, ROOT / self.mutant.path, loader=self
        )  # its own path, which inspect and tracebacks read

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(self.mutant.source, self.mutant.path, "exec"), module.__dict__)


def start(mutant: Mutant, output: Path) -> int:
    """Run a mutant's tests in a forked process, and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.meta_path.insert(0, _Finder(mutant))
        import pytest

        code = int(pytest.main([*OPTIONS, *tests_of(mutant.path)]))
    except BaseException:  # whatever it is, it is the mutant's doing
        code = 1
    os._exit(code)


def run(chosen: Sequence[Mutant], processes: int) -> list[Mutant]:
    """Run every mutant, some side by side; return those that no test noticed."""
    for name in WARM:
        importlib.import_module(name)
    for name in _WARM_MAYBE:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    import torch

    # the first batched derivative loads a compiler, which takes longer than all tests of a mutant
    torch.func.vmap(torch.func.grad(torch.sin))(torch.ones(2))
    living: list[Mutant] = []
    waiting, running = list(enumerate(chosen)), {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < processes:
                number, mutant = waiting.pop(0)
                child = start(mutant, Path(folder) / f"{number}.txt")
                running[child] = (number, mutant, time.monotonic())
            child, status, used = os.wait4(-1, os.WNOHANG)
            if child:
                number, mutant, _ = running.pop(child)
                lived = os.waitstatus_to_exitcode(status) == 0
                living += [mutant] if lived else []
                took = used.ru_utime + used.ru_stime
                word = "LIVES" if lived else "killed"
                where = f"{mutant.path}:{mutant.line}"
                print(f"{number:>4} {word} {took:5.1f} s {where}: {mutant.change}", flush=True)
                continue
            for process, (_, _, began) in running.items():
                if time.monotonic() - began > TIMEOUT:
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
    return living


def main() -> int:
    """Draw, run, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--first", type=int, default=0, help="go on from this one of the sample")
    parser.add_argument("--named", action="store_true", help="those alone that must die")
    parser.add_argument("--only", default="", help="files whose path holds this")
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    began = time.monotonic()
    must = [m for m in named() if asked.only in m.path]
    drawn = [] if asked.named else sample(asked.count, asked.seed, asked.only)[asked.first :]
    equal = [mutant for mutant in drawn if reason(mutant)]
    chosen = [*must, *(mutant for mutant in drawn if not reason(mutant))]
    living = run(chosen, asked.processes)
    killed = 1 - len(living) / len(chosen)
    minutes = (time.monotonic() - began) / 60
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = (used.ru_utime + used.ru_stime) / 60
    print(f"{len(chosen) - len(living)} of {len(chosen)} killed ({killed:.1%})")
    print(f"{minutes:.1f} minutes, {core:.1f} of one core")
    print(f"{len(equal)} change nothing, and were not tried")
    for mutant in equal:
        print(f"  {mutant.path}:{mutant.line}: {mutant.change} ({reason(mutant)})")
    for mutant in living:
        print(f"  {mutant.path}:{mutant.line}: {mutant.change}")
    return 0 if killed >= SHARE and not set(must) & set(living) else 1


if __name__ == "__main__":
    sys.exit(main())
