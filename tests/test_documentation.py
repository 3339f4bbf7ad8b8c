"""Python in README.md and docs/ runs as it stands there, and gives what the comments beside it say.

A page's blocks run in order, in one namespace. A comment beside an expression that begins with a Python literal, as in
``profile.facts.sram  # None: not stated``, is the expression's value; one beside a ``print`` that does not begin with a
word is what is printed. All other comments are prose.
"""

import ast
import contextlib
import io
import re
import sys
import tokenize
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import _registry
from sekron_edge.budget import _registry as budget_registry
from sekron_edge.budget import resources
from tests.cost_models import MacsAreTime

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if BLOCK.search(page.read_text())]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.LazyLinear(10)).eval()


def a_job_that_is_not_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    """README's job: it takes minutes, and examples/own_model.py is one that runs. Names and keywords are checked."""
    done = mock.Mock(spec_set=[field.name for field in fields(se.Compressed)])
    monkeypatch.setattr(se, "compress", mock.create_autospec(se.compress, return_value=done))
    return {"model": network(), "task": mock.Mock(spec_set=se.Task)}


def a_bundle(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    """What a bundle holds for those who read it with PyTorch."""
    original, inputs = network(), (torch.randn(1, 3, 8, 8),)
    original(*inputs)
    plan = se.score(original, inputs, MacsAreTime()).plan(se.Budget(macs="0.5x"), profile="host", runtime="litert")
    bundle = folder / "dist" / "my-model"
    bundle.mkdir(parents=True)
    (bundle / "plan.json").write_text(plan.model_dump_json())
    save_file(se.decompose(original, plan).state_dict(), bundle / "weights.safetensors")
    monkeypatch.chdir(folder)
    return {"original": original}


def a_model(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    model = network()
    model(torch.randn(1, 3, 8, 8))
    return {"model": model}


def a_table_of_its_own(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    """The resource that the page registers goes with the test."""
    monkeypatch.setattr(budget_registry, "_table", dict(resources()))
    return {}


def the_files_of_an_exporter(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    """The page's own files; what it registers goes with the test."""
    for name, text in FILES.findall((ROOT / "docs" / "exporters.md").read_text()):
        (folder / name).write_text(text)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(_registry, "_registered", {})
    monkeypatch.chdir(folder)
    return {"__file__": str(folder / "page.py")}


# What a page takes for granted.
SETUPS: dict[str, Callable[[pytest.MonkeyPatch, Path], dict[str, object]]] = {
    "README.md": a_job_that_is_not_run,
    "docs/bundles.md": a_bundle,
    "docs/exporters.md": the_files_of_an_exporter,
    "docs/jobs.md": a_table_of_its_own,
    "docs/structures.md": a_model,
}


def run_blocks(text: str, namespace: dict[str, Any], *, page: str = "page") -> None:
    """Run a page's blocks, and hold what they give against the comments beside it."""
    for block in BLOCK.finditer(text):
        # As many empty lines come first as stand before it: errors name the page's own lines.
        source = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        for statement in ast.parse(source).body:
            comment = comments.get(statement.end_lineno or 0, "")
            where = f"{page}, line {statement.lineno}: `{ast.unparse(statement)}`"
            with contextlib.redirect_stdout(io.StringIO()) as out:
                if not isinstance(statement, ast.Expr):
                    exec(compile(ast.Module([statement], []), page, "exec"), namespace)
                    continue
                value = eval(compile(ast.Expression(statement.value), page, "eval"), namespace)
            printed = out.getvalue().strip()
            if printed and not re.match(r"[A-Za-z]+[ ,]", comment):
                assert printed == comment, f"{where} prints {printed!r}"
            for expected in _literal(comment) if not printed else ():
                assert value == expected, f"{where} is {value!r}"


def _literal(comment: str) -> list[object]:
    """Return the value that a comment begins with, if it does."""
    for text in (comment, re.split(r"[:,] (?=[a-z])", comment)[0]):
        with contextlib.suppress(ValueError, SyntaxError):
            return [ast.literal_eval(text)]
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_pages_examples_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = page.relative_to(ROOT).as_posix()
    namespace: dict[str, object] = {"__name__": "page"}
    if name in SETUPS:
        namespace |= SETUPS[name](monkeypatch, tmp_path)
    run_blocks(page.read_text(), namespace, page=name)


@pytest.mark.parametrize(
    "line", ["1 + 1  # 3", "1 + 1  # 3: a sum", "print(2)  # 3", "undefined", "1 + 1  # None, always", "'a'  # 'b'"]
)
def test_what_a_page_says_and_is_not_so_is_found(line: str) -> None:
    with pytest.raises((AssertionError, NameError)):
        run_blocks(f"# A page\n\n```python\n{line}\n```\n", {})


def test_blocks_share_names_and_prose_is_not_compared() -> None:
    run_blocks(
        "```python\nx = 2\n```\n\n```python\nx  # 2, always\nprint(x)  # a number\nx  # CP, of rank 3\n```\n", {}
    )


def test_the_job_in_the_readme_would_not_take_a_keyword_that_compress_has_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_job_that_is_not_run(monkeypatch, tmp_path)
    with pytest.raises(TypeError, match="budgets"):
        se.compress(network(), (), profile="host", task=mock.Mock(), out="", budgets=se.Budget())  # type: ignore[call-arg]
