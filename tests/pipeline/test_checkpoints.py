"""Weights are loaded from files as they come; what does not fit is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sekron_edge.errors import ConfigError
from sekron_edge.nn import tied_names, untied_state, whole_state
from sekron_edge.pipeline import LogProgress, load_model
from sekron_edge.pipeline._checkpoints import load_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def state() -> dict[str, Tensor]:
    return {name: torch.ones_like(value) for name, value in network().state_dict().items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state().items()}


HELD: dict[str, tuple[Any, str]] = {
    "plain": (state(), ""),
    "nested": ({"epoch": 3, "state_dict": state(), "optimizer": {"lr": 0.1}}, "under 'state_dict'"),
    "data parallel": (prefixed("module."), "without the prefix 'module.'"),
    "lightning": (
        {"state_dict": {**prefixed("model."), "loss.weight": torch.ones(2)}, "callbacks": {}},
        "under 'state_dict' without the prefix 'model.'",
    ),
    "compiled": ({"model": prefixed("module._orig_mod.")}, "under 'model' without the prefix 'module._orig_mod.'"),
    "deep": (
        {"model": prefixed("model.task_model.backbone.body.")},
        "under 'model' without the prefix 'model.task_model.backbone.body.'",
    ),
    "half precision": ({name: v.half() if v.is_floating_point() else v for name, v in state().items()}, ""),
}


@pytest.mark.parametrize("name", HELD)
def test_checkpoints_as_they_come(name: str, tmp_path: Path) -> None:
    content, said = HELD[name]
    torch.save(content, tmp_path / "w.pt")
    model = network()
    assert load_weights(model, tmp_path / "w.pt") == said
    assert all((value == 1).all() for value in model.state_dict().values())
    assert next(model.parameters()).dtype == torch.float32


class Said(LogProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_what_was_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))\n"
    )
    torch.save({"ema": prefixed("module.")}, tmp_path / "w.pt")
    progress = Said()
    load_model(f"{tmp_path}/net.py:make", tmp_path / "w.pt", progress=progress)
    assert progress.lines == [f"weights {tmp_path}/w.pt: taken under 'ema' without the prefix 'module.'"]


def test_of_several_that_fit_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": network().state_dict(), "ema": state()}, path)
    with pytest.raises(
        ConfigError, match=r"several state dicts that fit, 'model', 'ema': name one as model\.weights_key"
    ):
        load_weights(network(), path)
    model = network()
    assert load_weights(model, path, key="ema") == "under 'ema'"
    assert (model.get_parameter("0.weight") == 1).all()
    with pytest.raises(ConfigError, match="no state dict 'best'; it holds 'model', 'ema'"):
        load_weights(model, path, key="best")


def test_what_does_not_fit_is_said_of_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    content = prefixed("module.")
    content["module.0.weight"] = torch.ones(4, 5)
    del content["module.0.bias"]
    torch.save({"optimizer": {"momentum": torch.ones(1)}, "net": content}, path)
    with pytest.raises(
        ConfigError, match=r"under 'net' without the prefix 'module\.' .*1 missing \(0\.bias\); 1 of another"
    ):
        load_weights(network(), path)


def test_nothing_but_tensors_is_ever_read(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"hold more than tensors .*save model\.state_dict\(\) alone"):
        load_weights(network(), tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        load_weights(network(), tmp_path / "w.pt")


def tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    model[1].weight = model[0].weight
    return model


def test_tied_weights_are_saved_once_and_are_tied_again(tmp_path: Path) -> None:
    model = tied()
    assert tied_names(model) == {"1.weight": "0.weight"}
    path = tmp_path / "w.safetensors"
    save_file(untied_state(model), path)
    other = tied()
    load_weights(other, path)
    assert torch.equal(other.get_parameter("1.weight"), model.get_parameter("0.weight"))
    assert other.get_parameter("1.weight") is other.get_parameter("0.weight")
    under_the_other_name = {"1.weight": torch.zeros(5, 3), "1.bias": torch.zeros(5)}
    assert whole_state(model, under_the_other_name).keys() == model.state_dict().keys()
