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
from pathlib import Path

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


def test_shapes_are_checked_in_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A border annotated the way the package does it refuses an array of the wrong shape."""
    (tmp_path / "shaped_example.py").write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "import numpy as np\n"
        "if TYPE_CHECKING:\n"
        "    from jaxtyping import Float\n"
        "def total(x: Float[np.ndarray, 'C S']) -> Float[np.ndarray, 'C']:\n"
        "    return x.sum(1)\n",
        encoding="utf-8",
    )
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert conftest is not None
    assert conftest.annotated_modules(tmp_path) == ["shaped_example"]
    monkeypatch.syspath_prepend(str(tmp_path))
    conftest.check_shapes(["shaped_example"])
    module = importlib.import_module("shaped_example")
    assert module.total(np.zeros((2, 3))).shape == (2,)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'x'"):
        module.total(np.zeros(2))
