"""A job's file says what is wrong with it; models come from references and plain weights."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sekron_edge.errors import ConfigError
from sekron_edge.pipeline import load_config, load_model
from tests.narrowing import present

JOB = """
name = "job"
[model]
factory = "net.py:make"
weights = "${WEIGHTS}/w.safetensors"
[data]
source = "digits"
[budget]
latency_ms = "0.5x"
artifact_bytes = 20000
"""


def write(tmp_path: Path, text: str = JOB) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def test_relative_paths_are_from_the_files_folder_and_variables_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS", "sub")
    config = load_config(write(tmp_path))
    assert config.model.factory == f"{tmp_path / 'net.py'}:make"
    assert config.model.weights == tmp_path / "sub" / "w.safetensors"
    assert present(config.budget.latency_ms).relative
    assert present(config.budget.artifact_bytes).value == 20000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('source = "digits"', 'sorce = "digits"', r"unknown key 'data.sorce'; did you mean 'source'"),
        ("[budget]", "[bugdet]", r"unknown key 'bugdet'; did you mean 'budget'"),
        ('latency_ms = "0.5x"', 'latency = "0.5x"', r"unknown key 'budget.latency'; did you mean 'latency_ms'"),
        ('latency_ms = "0.5x"', 'latency_ms = "fast"', r"positive number"),
        ('name = "job"', "name = 3", r"name: .*string.*3"),
        ('name = "job"', 'name = "job', r"cannot be read"),
        ("${WEIGHTS}", "${NOWHERE_SET}", r"NOWHERE_SET, which is not set"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    monkeypatch.setenv("WEIGHTS", "sub")
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, JOB.replace(old, new)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load_config(tmp_path / "none.toml")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(
        textwrap.dedent("""
        from torch import nn
        def make():
            return nn.Linear(3, 2)
        def number():
            return 3
        """)
    )
    return tmp_path / "net.py"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_of_both_kinds_are_loaded(network: Path, suffix: str) -> None:
    state = nn.Linear(3, 2).state_dict()
    path = network.parent / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    model = load_model(f"{network}:make", path)
    assert isinstance(model, nn.Linear)
    assert model.weight.equal(state["weight"])
    assert not model.training


def test_what_a_model_cannot_be_made_from_is_named(network: Path) -> None:
    folder = network.parent
    save_file({"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}, folder / "other.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    torch.save(nn.Linear(3, 2), folder / "pickled.pt")
    for reference, weights, message in [
        (f"{network}:number", None, "must give a torch.nn.Module; it gave int"),
        (f"{network}:absent", None, "has no 'absent'"),
        (f"{folder}/no.py:make", None, "no file"),
        ("no_such_package:make", None, "no module 'no_such_package'"),
        ("net", None, "must be 'package.module:name'"),
        (
            f"{network}:make",
            "other.safetensors",
            r"1 missing \(bias\); 1 unknown \(scale\); 1 of another",
        ),
        (f"{network}:make", "broken.safetensors", "cannot be read"),
        (f"{network}:make", "pickled.pt", "hold more than tensors"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_model(reference, None if weights is None else folder / weights)


def test_the_example_in_the_guide_is_correct_and_names_every_key(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()
    block = present(re.search(r"```toml\n(.*?)```", guide, re.DOTALL))[1]
    config = load_config(write(tmp_path, block))
    assert config.budget.accuracy_drop == 0.01
    for section in ("model", "data", "target", "budget", "finetune"):
        for key in type(getattr(config, section)).model_fields:
            if (section, key) not in {("finetune", k) for k in ("weight_decay", "momentum", "batch_size", "seed")}:
                assert re.search(rf"^(# )?{key} = ", block, re.MULTILINE), (section, key)
