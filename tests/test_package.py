"""The promises of the package as a whole."""

import re
import subprocess
import sys
import zipfile
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import grimp
import pytest
from mypy import main as mypy_main
from packaging.utils import canonicalize_name

import sekron_edge

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists_and_is_listed() -> None:
    assert sorted(sekron_edge.__all__) == sekron_edge.__all__ == sorted(sekron_edge._HOME)
    for name in sekron_edge.__all__:
        assert getattr(sekron_edge, name) is not None


def test_importing_the_package_and_asking_for_help_do_not_import_torch() -> None:
    code = (
        "import sys, sekron_edge\n"
        "from sekron_edge.cli import main\n"
        "sys.argv = ['sekron-edge', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


# Where the wheel's modules are here.
FOLDERS = {"sekron_edge": "sekron_edge", "exporters": "sekron_edge.exporters", "profiles": "sekron_edge.profiles"}


def modules_below(folder: str, package: str) -> set[str]:
    """Return the names of a folder's modules, as those of a package."""
    names = set()
    for file in (ROOT / folder).rglob("*.py"):
        below = file.relative_to(ROOT / folder).with_suffix("").parts
        names.add(".".join([package, *(part for part in below if part != "__init__")]))
    return names


def test_every_gate_sees_every_module_of_the_wheel_and_mypy_all_others() -> None:
    # exporters/ and profiles/ lie outside the package's folder: links show them where they are installed.
    wheel = set().union(*(modules_below(*pair) for pair in FOLDERS.items()))
    assert {"sekron_edge", "sekron_edge.exporters.coreml.evaluator._weights", "sekron_edge.profiles"} <= wheel
    checked, _ = mypy_main.process_options(["--config-file", str(ROOT / "pyproject.toml")])
    others = set().union(*(modules_below(folder, folder) for folder in ("benchmarks", "examples", "tests")))
    assert {source.module for source in checked} >= wheel | others
    assert grimp.build_graph("sekron_edge", cache_dir=None).modules >= wheel


def test_modules_import_each_other_in_no_circle() -> None:
    # Imports for type checking are among them: no name is needed in two directions.
    graph = grimp.build_graph("sekron_edge", cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_the_version_stands_in_one_place() -> None:
    assert sekron_edge.__version__ == version("sekron-edge")


@pytest.mark.slow
def test_the_wheel_holds_every_part_and_nothing_else_at_the_top(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(ROOT), "--wheel-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} <= {"sekron_edge"}
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            assert f"{package.replace('.', '/')}/{file.relative_to(ROOT / folder).as_posix()}" in names
    assert {f"sekron_edge/profiles/{file.name}" for file in (ROOT / "profiles").glob("*.toml")} <= names
    templates = ROOT / "sekron_edge" / "bundle" / "templates"
    assert {f"sekron_edge/bundle/templates/{file.name}" for file in templates.iterdir()} <= names
    snippets = {file.relative_to(ROOT).as_posix() for file in (ROOT / "exporters").rglob("snippet.*")}
    assert snippets
    assert {f"sekron_edge/{name}" for name in snippets} <= names
    assert "sekron_edge/py.typed" in names


def test_the_lock_file_has_the_pinned_versions_with_hashes_and_names_no_place_that_serves_them() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE)
    assert len(blocks) == text.count("==")
    # A build of a version has a name of its own: the lock file has its hash, constraints.txt leaves it open.
    locked = {canonicalize_name(name): version.partition("+")[0] for name, version, _ in blocks}
    assert locked.items() >= {canonicalize_name(name): version for name, version in pinned.items()}.items()
    assert "setuptools" in locked
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
