"""The promises of the package as a whole."""

import ast
import subprocess
import sys
from pathlib import Path

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
