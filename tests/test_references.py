"""What users bring by reference: a file with its neighbours, a package, and every way in which their code fails."""

import importlib
import sys
import textwrap
from pathlib import Path

import pytest

from sekron_edge import references
from sekron_edge.errors import ConfigError


def write(folder: Path, **sources: str) -> None:
    for name, text in sources.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def made(reference: str) -> object:
    factory = references.load(reference, "a number")
    with references.errors_in(reference, "making the number"):
        return factory()


def test_files_of_two_folders_import_their_own_neighbours_and_nobody_else_sees_them(tmp_path: Path) -> None:
    for folder, value in (("first", 1), ("second", 2)):
        net = """
            from blocks import B
            def make():
                from late import twice  # an import that runs when the factory does
                return twice(B)
        """
        write(
            tmp_path / folder,
            net=net,
            blocks=f"from parts.one import B as B, {folder}",
            late="def twice(x): return 2 * x",
        )
        write(tmp_path / folder / "parts", one=f"B = {value}\n{folder} = 0")  # no __init__.py
    path = list(sys.path)
    factories = [references.load(f"{tmp_path / folder}/net.py:make") for folder in ("first", "second", "first")]
    assert [factory() for factory in factories] == [2, 4, 2]
    assert factories[0] is factories[2]
    assert sys.path == path
    assert not {"net", "blocks", "late", "parts"} & sys.modules.keys()
    assert not [*tmp_path.rglob("__pycache__")]


def test_a_neighbour_comes_before_an_installed_package_of_its_name_for_its_own_folder_only(tmp_path: Path) -> None:
    write(tmp_path, net="import yaml, torch\ndef make(): return yaml.VALUE, torch.__name__", yaml="VALUE = 3")
    assert made(f"{tmp_path}/net.py:make") == (3, "torch")
    assert importlib.import_module("yaml").safe_load("3") == 3


@pytest.mark.parametrize(
    "imports",
    [
        "from .blocks import B",
        "from ..layers.blocks import B",
        "from zoo.layers.blocks import B",
        "import zoo.layers.blocks\nB = zoo.layers.blocks.B",
        "import zoo.layers.blocks as own\nB = own.B",
        "from zoo.layers import blocks\nB = blocks.B",
        "from blocks import B",  # as a script would
    ],
)
@pytest.mark.parametrize("initialised", [True, False])
def test_a_file_in_a_package_imports_relatively_and_by_the_packages_name(
    tmp_path: Path, imports: str, initialised: bool
) -> None:
    if not initialised and imports.startswith("from .."):
        imports = "from blocks import B"  # above a file outside of any package there is nothing
    write(tmp_path, zoo__in__layers__in__blocks="B = 7", zoo__in__layers__in__net=f"{imports}\ndef make(): return B")
    if initialised:
        (tmp_path / "zoo" / "__init__.py").write_text("")
        # While a package is being imported, Python does not find it as an attribute of the one around it.
        early = "" if "zoo.layers.blocks.B" in imports else "from .net import make"
        (tmp_path / "zoo" / "layers" / "__init__.py").write_text(early)
    assert made(f"{tmp_path}/zoo/layers/net.py:make") == 7


def test_a_module_is_found_below_the_jobs_folder_and_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, zoo_of_mine__in__net="from zoo_of_mine.blocks import B\ndef make(): return B")
    write(tmp_path, zoo_of_mine__in__blocks="B = 7")
    assert references.located("zoo_of_mine.net:make", tmp_path) == f"{tmp_path}/zoo_of_mine/net.py:make"
    assert references.located("torch.nn:Linear", tmp_path) == "torch.nn:Linear"
    assert references.located("a/net.py:make", tmp_path) == f"{tmp_path}/a/net.py:make"
    assert references.located("/a/net.py:make", tmp_path) == "/a/net.py:make"
    monkeypatch.chdir(tmp_path)
    assert made("zoo_of_mine.net:make") == 7


def test_a_file_is_imported_as_it_is_now(tmp_path: Path) -> None:
    write(tmp_path, net="from blocks import B\ndef make(): return B", blocks="B = 1")
    reference = f"{tmp_path}/net.py:make"
    before = references.load(reference)
    write(tmp_path, blocks="B = 2")
    assert (before(), made(reference)) == (1, 2)


def test_names_with_dots_name_attributes_and_files(tmp_path: Path) -> None:
    (tmp_path / "net.v2.py").write_text("class Nets:\n    make = staticmethod(lambda: 5)\n")
    assert made(f"{tmp_path}/net.v2.py:Nets.make") == 5


def test_dataclasses_and_pickles_find_their_module(tmp_path: Path) -> None:
    write(
        tmp_path,
        net="""
        from __future__ import annotations
        import dataclasses, pickle
        @dataclasses.dataclass
        class Size:
            width: int = 3
        def make():
            return pickle.loads(pickle.dumps(Size())).width
        """,
    )
    assert made(f"{tmp_path}/net.py:make") == 3


@pytest.mark.parametrize(
    ("net", "blocks", "message"),
    [
        ("\nx = nn.Linear", "", r"net\.py, line 2: NameError: name 'nn' is not defined$"),
        ("from blocks import B", "B = (1", r"blocks\.py, line 1: SyntaxError: '\(' was never closed$"),
        ("from blocks import B", "\n\nB = {}['key']", r"blocks\.py, line 3: KeyError: 'key'$"),
        ("from blocks import C", "B = 1", r"net\.py, line 1: ImportError: cannot import name 'C' from"),
        ("import einops_of_mine", "", r"net\.py, line 1: it imports 'einops_of_mine', which is neither installed"),
        ("import blocks", "import no_such.one", r"blocks\.py, line 1: it imports 'no_such', which is neither"),
        ("import sys\nsys.exit('usage')", "", r"net\.py, line 2: it ends the process .*SystemExit: usage.*__main__"),
        ("def make():\n  raise ValueError('odd')", "", r"net\.py, line 2: making the number: ValueError: odd$"),
        ("def make():\n  import json\n  json.loads('{')", "", r"net\.py, line 3: making the number: JSONDecodeError"),
        ("def make(size): return size", "", r"net\.py.*: making the number: TypeError: make\(\) missing 1"),
        ("def build(): return 1", "", r"net\.py has no 'make' to make a number with$"),
        ("def makes(): return 1", "", r"net\.py has no 'make' to make a number with; did you mean 'makes'\?$"),
    ],
)
def test_an_error_in_the_users_files_is_one_with_its_file_and_line(
    tmp_path: Path, net: str, blocks: str, message: str
) -> None:
    write(tmp_path, net=net, blocks=blocks)
    with pytest.raises(ConfigError, match=message) as raised:
        made(f"{tmp_path}/net.py:make")
    assert "\n" not in str(raised.value)


def test_a_file_that_failed_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path, net="from blocks import B\ndef make(): return B", blocks="")
    with pytest.raises(ConfigError, match="cannot import name 'B'"):
        made(f"{tmp_path}/net.py:make")
    write(tmp_path, blocks="B = 4")
    assert made(f"{tmp_path}/net.py:make") == 4


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net", r"a model must be 'package.module:name' or 'file.py:name', got 'net'"),
        ("net.py:", r"a model must be"),
        ("nowhere/net.py:make", r"there is no file nowhere/net.py to make a model from"),
        ("no_such.module:make", r"no module 'no_such.module' to make a model from: .*'no_such'"),
        ("torch.no_such:make", r"no module 'torch.no_such' to make a model from"),
        ("torch.nn:Lineal", r"torch.nn has no 'Lineal' to make a model with; did you mean 'Linear'\?"),
        ("../odd name:make", r"a model must be"),
    ],
)
def test_a_reference_to_nothing_is_refused(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        references.load(reference, "a model")
