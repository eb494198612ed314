"""Students as ONNX files."""

import warnings
from typing import Sequence

import torch
from torch import Tensor, nn


def export_onnx(
    model: nn.Module, imgs: Tensor, data_samples: Sequence, path: str, opset: int = 18
) -> None:
    """Writes a student that takes images alone, for one rig, as ONNX.

    The calibration becomes part of the graph: the file serves images of the
    same size from cameras in the same pose. Input ``imgs`` (B, N, 3, H, W),
    normalised; output ``logits`` (B, X, Y, Z, C) in the student's frame.

    Args:
        model: A student of the BEVDet-Occ family with one frame; set to eval
            mode for the export alone.
        imgs: Images of the size to be served, (B, N, 3, H, W).
        data_samples: B samples with the calibration in their metainfo.
        path: The file.
        opset: Version of ONNX's operators, at least 16 (scattered sums).

    Raises:
        ValueError: If ``opset`` is lower.
    """
    if opset < 16:
        raise ValueError(f'opset takes 16 or more, got {opset}')
    wrapper = _Images(model, data_samples)
    was_training = model.training
    wrapper.eval()
    # What is computed outside of the graph, once, is a constant in it.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model(dict(imgs=imgs), data_samples)
        # torch >= 2.9 takes its other exporter unless told
        options = {} if torch.__version__ < '2.5' else dict(dynamo=False)
        torch.onnx.export(
            wrapper,
            (imgs,),
            path,
            input_names=['imgs'],
            output_names=['logits'],
            opset_version=opset,
            **options,
        )
    model.train(was_training)


class _Images(nn.Module):
    def __init__(self, model: nn.Module, data_samples: Sequence) -> None:
        super().__init__()
        self.model = model
        self.data_samples = data_samples

    def forward(self, imgs: Tensor) -> Tensor:
        return self.model(dict(imgs=imgs), self.data_samples, mode='tensor')
