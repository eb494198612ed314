"""Workarounds for dependencies; each says when it can go."""

import importlib
import sys
import types

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from radocc_plugin.untrusted import load_checkpoint_file


def import_segment_anything(package: str = 'segment_anything'):
    """Imports segment-anything, or a fork, also without torchvision.

    It uses four functions of torchvision that it does not declare
    (github.com/facebookresearch/segment-anything/blob/main/setup.py), and
    PyPI's torchvision cannot be loaded beside a CPU-only torch ("operator
    torchvision::nms does not exist"). Then, and only then, torch and Pillow
    do the same four jobs. Goes when PyPI's torchvision loads on such a torch.

    Raises:
        ImportError: If the package is missing.
    """
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:
        if getattr(error, 'name', None) == package:
            raise ImportError(
                f'the package {package} is not installed: pip '
                f'install {package.replace("_", "-")}; or use a '
                'config of superpixels'
            ) from error
        if 'torchvision' not in str(error):
            raise
        print_log(
            f'torchvision cannot be loaded ({error}): for {package}, '
            'torch and Pillow stand in for it',
            logger='current',
        )
    stand_ins = _torchvision_stand_ins()
    hidden = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name.split('.')[0] == 'torchvision'
    }
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module(package)
    finally:
        for name in stand_ins:
            sys.modules.pop(name)
        sys.modules.update(hidden)


def _torchvision_stand_ins() -> dict:
    """Modules with the functions that segment-anything imports."""
    from PIL import Image

    functions = {
        'torchvision.ops.boxes': dict(
            batched_nms=_batched_nms, box_area=lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
        ),
        'torchvision.transforms.functional': dict(
            to_pil_image=Image.fromarray,
            resize=lambda image, size: image.resize(size[::-1], Image.BILINEAR),
        ),
    }
    modules = {}
    for name, members in functions.items():
        parts = name.split('.')
        for end in range(1, len(parts)):
            modules.setdefault('.'.join(parts[:end]), types.ModuleType('.'.join(parts[:end])))
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(members)
    return modules


def _batched_nms(boxes, scores, idxs, iou_threshold):
    """As ``torchvision.ops.batched_nms``: what is kept, by falling score."""
    order = scores.argsort(descending=True)
    boxes, idxs = boxes[order].cpu(), idxs[order].cpu()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for i, box in enumerate(boxes):
        if kept[i]:
            low = torch.maximum(boxes[i + 1 :, :2], box[:2])
            high = torch.minimum(boxes[i + 1 :, 2:], box[2:])
            shared = (high - low).clamp_min(0).prod(1)
            iou = shared / (areas[i] + areas[i + 1 :] - shared)
            # not "<=": boxes without an area overlap nothing
            kept[i + 1 :] &= ~((iou > iou_threshold) & (idxs[i + 1 :] == idxs[i]))
    return order[kept.to(order.device)]


def apply() -> None:
    """Registers the workarounds; called once when our registry is imported."""
    CheckpointLoader.register_scheme(
        prefixes=['', 's3://', 'petrel://'], loader=load_checkpoint_file, force=True
    )
