"""Which part may import which, what may never be called, and what stays light: read from the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "moodal"
FILES = sorted(SOURCE.rglob("*.py"))
LAYERS = (
    ("types",),
    ("config", "metrics", "agreement", "files", "terminal"),
    ("batch", "media"),
    ("models", "features", "data"),
    ("experiment", "recipes", "extraction"),
    ("training", "screening", "labels"),
    ("benchmark", "annotation", "serving", "doctor"),
    ("cli",),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
NEVER = {("serving", "training")}  # lower, and still none of its business

FORBIDDEN_CALLS = {
    "eval": "runs text as a program",
    "exec": "runs text as a program",
    "__import__": "hides an import from this test",
    "importlib.import_module": "hides an import from this test",
    "os.system": "hands text to a shell",
    "os.popen": "hands text to a shell",
    "pickle.load": "executes what is in the file",
    "pickle.loads": "executes what is in the file",
    "pickle.Unpickler": "executes what is in the file",
    "torch.load": "unpickles",
    "joblib.load": "unpickles",
    "pandas.read_pickle": "unpickles",
    "yaml.load": "builds any object",
    "marshal.loads": "crashes on foreign bytes",
    "print": "is for the command line; libraries log",
}
PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


def part_of(path: Path) -> str:
    """``src/moodal/data/store.py`` -> data; ``src/moodal/doctor.py`` -> doctor; the package itself -> nothing."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and part of every import of ours, wherever it stands: in a function, under TYPE_CHECKING, in a try."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{a.name}" for a in node.names]
        for name in names:
            head, *rest = name.split(".")
            if head == "moodal" and rest and not rest[0].startswith("__"):
                yield node.lineno, rest[0]


def reversed_arrows(tree: ast.AST, part: str) -> list[str]:
    """Imports that do not point to a lower level (within a package they may point anywhere)."""
    return [
        f"line {line}: {part or '__init__'} imports {other}"
        for line, other in imported_parts(tree)
        if other != part and (LEVEL[other] >= LEVEL.get(part, 0) or (part, other) in NEVER)
    ]


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """``np.load`` -> numpy.load, whatever numpy was called at its import."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, aliases)}.{node.attr}"
    return aliases.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def aliases_of(tree: ast.AST) -> dict[str, str]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def dangers(tree: ast.AST, path: Path) -> list[str]:
    """What runs foreign code or text, by line."""
    aliases, found = aliases_of(tree), []
    is_unpickler, is_cli = path == SOURCE / "data" / "unpickle.py", path.parent == SOURCE / "cli"
    for module in aliases.values():
        # the restricted reader is built on the interpreter of the standard library, and nothing else may name it
        if module.split(".")[0] in PICKLING and not (is_unpickler and module == "pickle"):
            found.append(f"imports {module}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node, aliases)
            if name in FORBIDDEN_CALLS and not (name == "print" and is_cli):
                found.append(f"line {node.lineno}: {name} {FORBIDDEN_CALLS[name]}")
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value for k in node.keywords}
            if "shell" in keywords and not _is_false(keywords["shell"]):
                found.append(f"line {node.lineno}: shell= hands text to a shell")
            if dotted(node.func, aliases) == "numpy.load" and not _is_false(keywords.get("allow_pickle")):
                found.append(f"line {node.lineno}: numpy.load must say allow_pickle=False")
            if "trust_remote_code" in keywords and not _is_false(keywords["trust_remote_code"]):
                found.append(f"line {node.lineno}: trust_remote_code runs what the hub holds")
    return found


def _is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_a_part_imports_only_from_lower_levels(path):
    assert not reversed_arrows(parse(path), part_of(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_no_file_runs_what_it_was_given(path):
    assert not dangers(parse(path), path)


def test_every_part_has_a_level():
    assert {part_of(p) for p in FILES} - {""} <= LEVEL.keys()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("batch", "from moodal.models.base import Output"),
        ("data", "from moodal import models"),
        ("models", "def f():\n    import moodal.data.store"),
        ("benchmark", "if TYPE_CHECKING:\n    from moodal.serving import app"),
        ("serving", "from moodal.training.loop import predict"),
        ("config", "from moodal.files import read_json"),
        ("", "from moodal.types import Task"),
    ],
)
def test_a_reversed_arrow_is_seen(part, line):
    assert reversed_arrows(ast.parse(line), part)


def test_arrows_that_point_down_or_stay_inside_are_fine():
    line = "from moodal import __version__, metrics\nfrom moodal.training.loop import predict"
    assert not reversed_arrows(ast.parse(line), "benchmark")
    assert not reversed_arrows(ast.parse("from moodal.models.mre import MRE"), "models")


@pytest.mark.parametrize(
    "line",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load as read\nread(f)",
        "import torch as t\nt.load(f)",
        "from torch import load\nload(f)",
        "run = eval\nrun('1')",
        "import subprocess as s\ns.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "print('hello')",
    ],
)
def test_a_danger_is_seen(line):
    assert dangers(ast.parse(line), SOURCE / "data" / "store.py")


def test_the_unpickler_may_name_pickle_but_not_load_with_it():
    unpickle = SOURCE / "data" / "unpickle.py"
    assert not dangers(ast.parse("import pickle\nclass R(pickle._Unpickler): pass"), unpickle)
    assert dangers(ast.parse("import pickle\nclass R(pickle._Unpickler): pass"), SOURCE / "data" / "mmsa.py")
    assert dangers(ast.parse("import pickle\npickle.loads(b'')"), unpickle)


def loaded_after(statement: str) -> set[str]:
    """The top-level modules in memory after ``statement`` in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_moodal_is_light():
    assert not loaded_after("import moodal") & {"torch", "numpy", "pyarrow", "scipy", "typer", "rich"}


def test_the_command_line_answers_before_torch_is_loaded():
    assert not loaded_after("import moodal.cli") & {"torch", "numpy", "pyarrow", "scipy", "sklearn", "matplotlib"}


def test_training_loads_no_library_that_it_may_not_need():
    assert not loaded_after("import moodal.training.plan") & {"transformers", "librosa", "matplotlib", "pandas"}
