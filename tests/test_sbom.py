"""Bills of materials are CycloneDX, and say what packages say of themselves."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.model.component import Component
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sekron_edge._version import __version__
from sekron_edge.sbom import Package, graph, installed, written


def require_cyclonedx(text: str) -> None:
    """Refuse what CycloneDX's own schema refuses."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def put(folder: Path, name: str, *lines: str) -> None:
    """Install a package that has metadata only."""
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, ""]))


def test_what_is_required_in_turn_is_found_with_the_extras_that_are_asked_for(install: Path) -> None:
    put(install, "Top-X", "Requires-Dist: middle-x[fast]>=1", "Requires-Dist: absent-x", "Provides-Extra: dev",
        "Requires-Dist: tool-x; extra == 'dev'", "Requires-Dist: other-x; sys_platform == 'none'")  # fmt: skip
    put(install, "middle_x", "Provides-Extra: fast", "Requires-Dist: quick-x; extra == 'fast'", "Requires-Dist: top-x",
        "Requires-Dist: no requirement (at all")  # fmt: skip
    for name in ("quick-x", "tool-x", "other-x"):
        put(install, name)
    found = installed("top-x")
    assert found == {
        "middle-x": Package("middle_x", "1.0", requires=("quick-x", "top-x")),
        "quick-x": Package("quick-x", "1.0"),
        "top-x": Package("Top-X", "1.0", requires=("middle-x",)),
    }
    assert set(installed("Top.X[dev]")) == {*found, "tool-x"}
    assert installed("absent-x", "no requirement") == {}


@pytest.mark.parametrize(
    ("lines", "licences", "in_cyclonedx"),
    [
        (["License-Expression: MIT", "Classifier: License :: OSI Approved :: BSD License"], ("MIT",), {"id": "MIT"}),
        (["Classifier: License :: Public Domain", "License: 3"], ("Public Domain",), {"name": "Public Domain"}),
        (["License: Three clauses", "        Copyright of somebody"], ("Three clauses",), {"name": "Three clauses"}),
        (["License: apache-2.0"], ("apache-2.0",), {"id": "Apache-2.0"}),
        (["License:"], (), None),
        ([], (), None),
    ],
)  # fmt: skip
def test_a_licence_is_what_the_package_says(
    install: Path, lines: list[str], licences: tuple[str, ...], in_cyclonedx: dict[str, str] | None
) -> None:
    put(install, "some-x", *lines)
    packages = installed("some-x")
    assert packages["some-x"].licences == licences
    subject = Component(name="all", bom_ref="all")
    needs = graph(packages)
    text = written(subject, needs | {subject: list(needs)}, datetime(2026, 1, 2, tzinfo=UTC))
    require_cyclonedx(text)
    (component,) = json.loads(text)["components"]
    assert component.get("licenses") == (None if in_cyclonedx is None else [{"license": in_cyclonedx}])


def test_the_same_contents_give_the_same_bytes_and_others_another_number() -> None:
    def document(version: str, day: int = 1) -> str:
        packages = {"b": Package("b", version), "a": Package("a", "2.0+cpu", ("MIT OR 0BSD",), ("b",))}
        subject = Component(name="all", bom_ref="all")
        needs = graph(packages)
        return written(subject, needs | {subject: list(needs)}, datetime(2026, 1, day, tzinfo=UTC))

    one = document("1")
    require_cyclonedx(one)
    assert document("1") == one
    numbers = {json.loads(text)["serialNumber"] for text in (one, document("2"), document("1", day=2))}
    assert len(numbers) == 3
    read = json.loads(one)
    assert read["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"
    assert {each["ref"]: each.get("dependsOn", []) for each in read["dependencies"]} == {
        "all": ["pkg:pypi/a@2.0%2Bcpu", "pkg:pypi/b@1"],
        "pkg:pypi/a@2.0%2Bcpu": ["pkg:pypi/b@1"],
        "pkg:pypi/b@1": [],
    }


def test_the_product_has_a_bill_with_a_licence_for_nearly_every_package(tmp_path: Path) -> None:
    out = tmp_path / "dist" / "sekron-edge.cdx.json"
    command = [sys.executable, "-m", "sekron_edge.sbom", str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    require_cyclonedx(out.read_text())
    read = json.loads(out.read_text())
    assert read["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    names = {each["name"] for each in read["components"]}
    assert names >= {"torch", "litert-torch", "executorch", "coremltools", "pydantic_core", "jax"}
    assert f"sekron-edge {__version__}: Apache-2.0" in printed.splitlines()
    unnamed = [line for line in printed.splitlines() if line.endswith("names none")]
    assert len(unnamed) < 0.05 * len(names)
