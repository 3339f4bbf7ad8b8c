"""The slim face detector of Ultra-Light-Fast-Generic-Face-Detector-1MB (an SSD on four maps), with its raw heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Output channels and stride of each depthwise-separable block.
_BLOCKS = (
    (32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1),
)  # fmt: skip
# The maps that heads see: after so many blocks of the base, with so many anchors at each place.
_MAPS = ((8, 3), (11, 2), (13, 2))
_LAST_ANCHORS = 3


class UltraFace(nn.Module):
    """From images ``(B, 3, 240, 320)`` to ``{"scores": (B, 4420, 2), "boxes": (B, 4420, 4)}``.

    Scores are of background and face. Boxes are offsets from anchors: what decodes them and drops overlaps belongs
    after the exported model.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())]
        inputs = 16
        for outputs, stride in _BLOCKS:
            blocks.append(_separable(inputs, outputs, stride))
            inputs = outputs
        self.base_net = nn.ModuleList(blocks)
        after = nn.Sequential(nn.Conv2d(64, 64, 3, 2, 1, groups=64), nn.ReLU(), nn.Conv2d(64, 256, 1))
        self.extras = nn.ModuleList([nn.Sequential(nn.Conv2d(256, 64, 1), nn.ReLU(), after, nn.ReLU())])
        self.classification_headers = _heads(2)
        self.regression_headers = _heads(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return all places' scores and boxes."""
        maps, ends = [], {end for end, _ in _MAPS}
        for number, block in enumerate(self.base_net, start=1):
            x = block(x)
            if number in ends:
                maps.append(x)
        maps.append(self.extras[0](x))
        scores = [_flat(head(y), 2) for head, y in zip(self.classification_headers, maps, strict=True)]
        boxes = [_flat(head(y), 4) for head, y in zip(self.regression_headers, maps, strict=True)]
        return {"scores": torch.cat(scores, 1).softmax(2), "boxes": torch.cat(boxes, 1)}


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


def _heads(values: int) -> nn.ModuleList:
    """Make the heads of all maps, each with so many values for an anchor."""
    channels = (64, 128, 256)
    heads: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c), nn.ReLU(), nn.Conv2d(c, anchors * values, 1))
        for c, (_, anchors) in zip(channels, _MAPS, strict=True)
    ]
    return nn.ModuleList([*heads, nn.Conv2d(256, _LAST_ANCHORS * values, 3, padding=1)])


def _flat(head: Tensor, values: int) -> Tensor:
    return head.permute(0, 2, 3, 1).reshape(head.shape[0], -1, values)
