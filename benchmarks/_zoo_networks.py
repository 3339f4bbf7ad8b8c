"""Networks with random weights: others', from torchvision and timm, and kinds that these lack, from the examples.

The compiled part of torchvision's wheel does not load beside the CPU build of torch. Two of its operators are declared
here instead; no network below runs one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from sekron_edge import references
from sekron_edge.errors import MissingDependencyError

_CLASSES = 10
# Names, and the side of the images, where 64 pixels are too few or the architecture asks for another size.
_TORCHVISION = {
    "resnet18": 64, "resnext50_32x4d": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "shufflenet_v2_x1_0": 64,
    "squeezenet1_1": 64, "googlenet": 64, "densenet121": 64, "efficientnet_b0": 64, "regnet_y_400mf": 64,
    "mnasnet1_0": 64, "convnext_tiny": 64, "swin_t": 64, "lraspp_mobilenet_v3_large": 96,
    "deeplabv3_mobilenet_v3_large": 96,
}  # fmt: skip
_TIMM = {
    "mobilenetv4_conv_small": 96, "efficientnet_lite0": 96, "ghostnet_100": 96, "ghostnetv2_100": 96, "repvgg_a0": 64,
    "mobileone_s0": 64, "fastvit_t8": 64, "mobilevit_xxs": 64, "mobilevitv2_050": 64, "efficientvit_b0": 64,
    "levit_128s": 224, "convnext_atto": 64, "convnextv2_atto": 64, "mixer_s32_224": 224, "resmlp_12_224": 224,
    "gmlp_ti16_224": 224, "poolformer_s12": 64, "deit_tiny_patch16_224": 224, "pit_ti_224": 224,
    "edgenext_xx_small": 64, "nf_regnet_b0": 64, "tinynet_e": 64, "lcnet_050": 64, "hardcorenas_a": 64,
    "fbnetc_100": 64, "mixnet_s": 64, "semnasnet_075": 64, "rexnet_100": 64, "dla46_c": 64, "selecsls42": 64,
    "res2net50_14w_8s": 64, "skresnet18": 64, "ese_vovnet19b_dw": 64, "inception_next_atto": 64, "starnet_s1": 64,
    "repghostnet_050": 64, "hgnetv2_b0": 64, "repvit_m0_9": 64, "shvit_s1": 64, "mambaout_femto": 64,
}  # fmt: skip
# Name of a file in `examples/models` and its factory, with the input's shape.
_EXAMPLES = {
    "keywords.py:keyword_net": (1, 40, 98),
    "ultraface.py:UltraFace": (3, 240, 320),
    "dncnn.py:DnCNN": (1, 48, 48),
    "edsr.py:EDSR": (3, 48, 48),
    "segmenter.py:Segmenter": (3, 64, 64),
}
_MODELS = Path(__file__).parents[1] / "examples" / "models"
_PACKAGES = {"torchvision": _TORCHVISION, "timm": _TIMM}
NETWORKS: dict[str, tuple[int, int, int]] = {
    **{f"{package}:{name}": (3, side, side) for package, names in _PACKAGES.items() for name, side in names.items()},
    **{f"examples:{name.partition(':')[2]}": shape for name, shape in _EXAMPLES.items()},
}
_SWITCHED_OFF = 1e-3


def absent_packages() -> list[str]:
    """Return the packages whose networks cannot be made here."""
    return [package for package in _PACKAGES if find_spec(package) is None]


def network(name: str) -> nn.Module:
    """Return one of `NETWORKS` in evaluation mode, seeded.

    Raises:
        MissingDependencyError: If its package is absent.
    """
    package, _, model = name.partition(":")
    if package in absent_packages():
        raise MissingDependencyError(package, "dev")
    torch.manual_seed(0)
    return _made(package, model).eval()


def _made(package: str, model: str) -> nn.Module:
    if package == "examples":
        (reference,) = (each for each in _EXAMPLES if each.endswith(f":{model}"))
        made: nn.Module = references.load(f"{_MODELS}/{reference}")()
        return made
    _declare_operators()
    if package == "timm":
        import timm

        return timm.create_model(model, num_classes=_CLASSES)  # type: ignore[no-any-return]
    import torchvision

    heads: dict[str, bool | None] = {"init_weights": True} if model == "googlenet" else {}
    heads |= {"weights_backbone": None} if _TORCHVISION[model] == 96 else {}
    return torchvision.models.get_model(model, weights=None, num_classes=_CLASSES, **heads)  # type: ignore[no-any-return]


def settled(model: nn.Module, images: Tensor) -> nn.Module:
    """Make a network with random weights compute something, as training would; return it in evaluation mode.

    Initialisation switches branches off: scales of layers, norms' weights and heads are left at zero or next to it.
    Those are drawn. Batch norms get the statistics of some images ``(batch, channels, height, width)``, and biases
    that let most values through the activation after them: with biases of zero, a network of random weights is
    chaotic (Yang et al. 2019, arXiv 1902.08129). One part in a hundred of the input's deviation becomes half of the
    output's in LCNet, and no rounding can be small in such a network.
    """
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        if not name.endswith("bias") and value.numel() > 1 and value.abs().max() <= _SWITCHED_OFF:
            _draw_(value, generator)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if norm.affine:
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.0, generator=generator)
                norm.bias.uniform_(0.8, 1.2, generator=generator)
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def _draw_(value: nn.Parameter, generator: torch.Generator) -> None:
    """Fill a matrix as to keep its input's variance, and a scale with values that let its branch through."""
    scale = max(value.shape, default=1) == value.numel()
    with torch.no_grad():
        if scale:
            value.uniform_(0.1, 0.5, generator=generator)
        else:
            value.normal_(0.0, value[0].numel() ** -0.5, generator=generator)


def _declare_operators() -> None:
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


# Operators are undeclared when their library is collected.
_declared: list[torch.library.Library] = []
