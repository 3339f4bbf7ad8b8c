"""The promises of the package as a whole."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sekron_edge


def test_every_public_name_exists_and_is_listed():
    assert sorted(sekron_edge.__all__) == sekron_edge.__all__ == sorted(sekron_edge._HOME)
    for name in sekron_edge.__all__:
        assert getattr(sekron_edge, name) is not None


def test_importing_the_package_and_asking_for_help_do_not_import_torch():
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


def test_the_core_imports_no_export_format_by_name():
    # import-linter cannot see this one: exporters/ lies outside the package's folder.
    for file in Path(sekron_edge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("sekron_edge.exporters") for name in names), file


@pytest.mark.slow
def test_the_wheel_holds_every_part_and_nothing_else_at_the_top(tmp_path):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(root), "--wheel-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} <= {"sekron_edge"}
    for folder, inside in (("sekron_edge", "sekron_edge"), ("exporters", "sekron_edge/exporters")):
        for file in (root / folder).rglob("*.py"):
            assert f"{inside}/{file.relative_to(root / folder).as_posix()}" in names
    assert {f"sekron_edge/profiles/{file.name}" for file in (root / "profiles").glob("*.toml")} <= names
    templates = root / "sekron_edge" / "bundle" / "templates"
    assert {f"sekron_edge/bundle/templates/{file.name}" for file in templates.iterdir()} <= names
    assert "sekron_edge/py.typed" in names
