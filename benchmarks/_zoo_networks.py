"""Networks that others designed, from torchvision and timm, with random weights and small images.

The compiled part of torchvision's wheel does not load beside the CPU build of torch. Two of its operators are declared
here instead; no network below runs one.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn

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
_PACKAGES = {"torchvision": _TORCHVISION, "timm": _TIMM}
NETWORKS = {f"{package}:{name}": side for package, names in _PACKAGES.items() for name, side in names.items()}


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
    _declare_operators()
    torch.manual_seed(0)
    if package == "timm":
        import timm

        made: nn.Module = timm.create_model(model, num_classes=_CLASSES)
    else:
        import torchvision

        heads: dict[str, bool | None] = {"init_weights": True} if model == "googlenet" else {}
        heads |= {"weights_backbone": None} if NETWORKS[name] == 96 else {}
        made = torchvision.models.get_model(model, weights=None, num_classes=_CLASSES, **heads)
    return made.eval()


def settled(model: nn.Module, images: Tensor) -> nn.Module:
    """Give batch norms the statistics of some images ``(batch, channels, height, width)``; dropout stays off."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def _declare_operators() -> None:
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


# Operators are undeclared when their library is collected.
_declared: list[torch.library.Library] = []
