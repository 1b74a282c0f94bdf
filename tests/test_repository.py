"""The repository keeps its own promises: what imports what, what loads torch, what is declared, how large things are."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "rllc"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TORCH_FREE = ("core", "records", "analysis", "figures", "report")
SOURCES = sorted(path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))

WITHOUT_TORCH = """
import importlib, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("torch is blocked in this test", name="torch")
sys.meta_path.insert(0, NoTorch())
for name in {names!r}:
    importlib.import_module(name)
"""

needs_main = pytest.mark.skipif(not (PACKAGE / "main.py").exists(), reason="rllc.main is not there yet")


def python(code: str) -> None:
    """Run `code` in a fresh interpreter that sees the package; its failure is the test's."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def tracked() -> list[Path]:
    """The files that git knows."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def modules_of(room: str) -> list[str]:
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in sorted((PACKAGE / room).rglob("*.py"))
    ]


def imported_names(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_importing_the_package_loads_no_torch() -> None:
    python("import rllc, sys; assert 'torch' not in sys.modules, 'torch was loaded'")


@needs_main
def test_help_loads_no_torch() -> None:
    python(
        "import sys; sys.argv = ['rllc', '--help']\n"
        "from rllc.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )


@pytest.mark.parametrize("room", TORCH_FREE)
def test_room_imports_where_torch_is_not_installed(room: str) -> None:
    python(WITHOUT_TORCH.format(names=modules_of(room)))


def test_settings_import_where_torch_is_not_installed() -> None:
    names = [f"rllc.{path.parent.name}.settings" for path in sorted(PACKAGE.glob("*/settings.py"))]
    python(WITHOUT_TORCH.format(names=names))


def test_every_import_is_declared() -> None:
    declared = [*PROJECT["project"]["dependencies"], *(line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines)]
    known = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-") for line in declared} | {"rllc", "jaxtyping"}
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in imported_names(path) - sys.stdlib_module_names
        if not {owner.lower().replace("_", "-") for owner in providers.get(name, [name])} & known
    }
    assert not undeclared


def test_every_dependency_is_pinned() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line}
    groups = [entry for entries in PROJECT["dependency-groups"].values() for entry in entries if isinstance(entry, str)]
    extras = [line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines]
    wanted = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-") for line in [*PROJECT["project"]["dependencies"], *extras, *groups]}
    assert wanted <= pins
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package and its contracts, to be broken."""
    shutil.copytree(PACKAGE, tmp_path / "src" / "rllc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> str:
    """The import linter's words on the package in `folder`."""
    pytest.importorskip("importlinter")
    code = "import sys; sys.argv = ['lint-imports', '--no-cache', '--no-logo']; from importlinter.cli import lint_imports_command as main; main()"
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment, check=False)
    return done.stdout + done.stderr


def test_import_contracts_hold(house: Path) -> None:
    assert re.search(r"Contracts: \d+ kept, 0 broken", lint_imports(house))


def test_every_import_contract_can_break(house: Path) -> None:
    violations = {
        "core/seeds.py": "import scipy",
        "training/settings.py": "import torch",
        "posterior/_broken.py": "import rllc.model.forward",
        "behaviour/_broken.py": "import rllc.posterior",
        "checkpoints/_broken.py": "import rllc.model.forward",
        "figures/_broken.py": "import rllc.records",
        "report/_broken.py": "import rllc.runs",
        "runs/_broken.py": "import rllc.main",
        "main.py": "import rllc.runs",
    }
    for name, line in violations.items():
        with (house / "src" / "rllc" / name).open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")
    contracts = len(PROJECT["tool"]["importlinter"]["contracts"])
    assert f"Contracts: 0 kept, {contracts} broken" in lint_imports(house)


def test_every_room_has_a_contract() -> None:
    rooms = {f"rllc.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    named = {module for contract in contracts for module in contract.get("source_modules", contract.get("layers"))}
    assert rooms <= named


def test_room_fronts_import_nothing() -> None:
    """The `__init__` of a room is a docstring, so that naming one module loads no other."""
    for path in PACKAGE.glob("*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{path.relative_to(ROOT)} holds more than a docstring"
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_large_file_is_tracked() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked() if path.stat().st_size > 1_000_000}
    assert not large


def test_source_files_are_short_enough_to_read_at_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


SHAPED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
import numpy as np
if TYPE_CHECKING:
    from jaxtyping import Float
def total(x: Float[np.ndarray, 'C S'], spoilt: bool = False) -> Float[np.ndarray, 'C']:
    return x if spoilt else x.sum(1)
def filled(length: int, given: int) -> Float[np.ndarray, '{length}']:
    return np.zeros(given)
def doubled(x: Float[np.ndarray, 'S']):
    def inner(y: Float[np.ndarray, 'S'], name: Literal['a', 'b']) -> Float[np.ndarray, 'S']:
        return y + x
    return inner
def largest(table: dict[str, Float[np.ndarray, 'S']], *, like: Float[np.ndarray, 'S']) -> Float[np.ndarray, 'S']:
    return max(table.values(), key=np.sum)
@dataclass
class Pair:
    first: Float[np.ndarray, 'S']
    second: Float[np.ndarray, 'S']
"""


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A module that is annotated the way the package does it."""
    folder = tmp_path_factory.mktemp("shaped")
    (folder / "shaped_example.py").write_text(SHAPED, encoding="utf-8")
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert conftest is not None
    assert conftest.annotated_modules(folder) == ["shaped_example"]
    conftest.check_shapes(["shaped_example"])
    sys.path.insert(0, str(folder))
    yield importlib.import_module("shaped_example")
    sys.path.remove(str(folder))


def test_shapes_are_checked_in_tests(shaped: Any) -> None:
    """A border refuses an array of the wrong shape, also after calls that were right, whose check is remembered."""
    for _ in range(3):
        assert shaped.total(np.zeros((2, 3))).shape == shaped.total(np.zeros((2, 2)), False).shape == (2,)
        with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'x'"):
            shaped.total(np.zeros(2))
        with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'x'"):
            shaped.total(np.zeros((2, 3), dtype=int))
        with pytest.raises(jaxtyping.TypeCheckError, match=r"return value of shaped_example\.total"):
            shaped.total(np.zeros((2, 2)), True)
        with pytest.raises(TypeError, match="required"):
            shaped.total()


def test_what_is_remembered_of_shapes_is_all_that_counts(shaped: Any) -> None:
    """Sizes given by value, functions within functions, strings of a Literal, members of a dict, keywords, fields of a dataclass."""
    right, wrong = np.zeros(2), np.zeros(3)
    for _ in range(2):
        assert len(shaped.filled(2, 2)) == 2
        with pytest.raises(jaxtyping.TypeCheckError):
            shaped.filled(3, 2)
        assert len(shaped.doubled(right)(right, "a")) == 2
        assert len(shaped.doubled(wrong)(wrong, "b")) == 3
        with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'y'"):
            shaped.doubled(right)(np.zeros((1, 2)), "a")
        with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'name'"):
            shaped.doubled(right)(right, "c")
        assert len(shaped.largest({"a": right}, like=right)) == 2
        for arguments, keywords in [(({"a": right},), {"like": wrong}), (({"a": right[None]},), {"like": right}), (({1: right},), {"like": right})]:
            with pytest.raises(jaxtyping.TypeCheckError):
                shaped.largest(*arguments, **keywords)
        assert shaped.Pair(right, right).first is right
        with pytest.raises(jaxtyping.TypeCheckError):
            shaped.Pair(right, wrong)


def test_json_and_toml_are_parsed_in_one_place() -> None:
    """Their libraries answer to tables within tables without end by a RecursionError, which nobody else need think of."""
    calls = re.compile(r"\b(json|tomllib)\.loads?\(")
    found = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if calls.search(path.read_text(encoding="utf-8"))]
    assert found == ["core/files.py"]
