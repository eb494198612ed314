"""What probabilities say that labels do not: likelihood and rendered depth.

B batch, X Y Z grid, C classes, V voxels, R rays.
"""

from types import SimpleNamespace
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.evaluation.base import LabelSpaceMetric, total_counts
from radocc_plugin.evaluation.sample_fields import mask_of, volume_of
from radocc_plugin.geometry import Cameras
from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.registry import METRICS
from radocc_plugin.rendering import Render, VolumeRenderer

# A ray of the labels hits something if less light than this is left.
HIT = 0.5
# Logit of the label, the others being 0: light ends within centimetres.
SURE = 40.0


def negative_log_likelihood(
    logits: Tensor, labels: Tensor, mask: Optional[Tensor] = None
) -> Tuple[float, int]:
    """Sum of ``-log p(label)`` over voxels in nats, and their number.

    Args:
        logits: (X, Y, Z, C).
        labels: (X, Y, Z); 255 (unlabelled) is not counted.
        mask: Voxels to count, bool, (X, Y, Z); all of them if None.
    """
    counted = labels != UNLABELLED
    if mask is not None:
        counted = counted & mask.bool()
    rows = logits[counted].double().log_softmax(-1)
    values = rows.gather(-1, labels[counted].long()[:, None])
    return -values.sum().item(), len(rows)


def mean_depth(render: Render) -> Tensor:
    """Mean depth of a ray's light, metres, (R,); light that hits nothing
    counts where the ray leaves the grid, NaN for rays that never enter it."""
    crossings = render.geometry.crossings
    last = (crossings.offsets[1:] - 1).clamp_min(0)
    enters = crossings.offsets.diff() > 0
    far = crossings.far[last] if len(crossings.far) else torch.zeros_like(render.depth)
    return torch.where(enters, render.depth + render.no_hit * far, torch.nan)


@METRICS.register_module()
class OccLikelihood(LabelSpaceMetric):
    """Negative log-likelihood and rendered depth error of a model's
    probabilities, with the class weights of its loss taken out.

    Smoother than mIoU, which one rare class moves by a point. The hook
    ``LogitsForMetrics`` brings the logits; ``tools/test.py --metrics
    likelihood`` sets both up.

    ``NLL`` is the mean of ``-log p(label)`` over the voxels of the mask in
    nats; ``depth_error`` the mean distance in metres between the rendered
    depths of prediction and labels, over camera rays that hit something in
    the labels.

    Args:
        mask: As in ``OccMetric``.
        render_size: Rays of each camera, rows and columns.
        **kwargs: Arguments of BaseMetric.

    Raises:
        ValueError: If no hook brings logits, or a sample lacks a field.
    """

    default_prefix = 'soft'

    def __init__(
        self, mask: Optional[str] = None, render_size: Tuple[int, int] = (18, 32), **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.mask = mask
        height, width = render_size
        self.render_size = (height, width)
        # Logits (B, X, Y, Z, C) of the last batch, see LogitsForMetrics.
        self.take_logits: Optional[Callable[[], Tensor]] = None

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Adds the sums of each sample to ``results``."""
        if self.take_logits is None:
            raise ValueError(
                "OccLikelihood takes the model's logits: add dict(type='radocc_plugin."
                "LogitsForMetrics') to custom_hooks"
            )
        space = self.label_space
        counted = space.mask(self.mask, 'OccLikelihood')
        name = f'OccLikelihood(mask={counted!r})'
        logits = self.take_logits().float()
        if len(logits) != len(data_samples):
            raise ValueError(
                f'OccLikelihood takes logits of {len(data_samples)} samples, got {len(logits)}'
            )
        renderer = VolumeRenderer(space.point_cloud_range, self.render_size)
        for volume, sample in zip(logits, data_samples):
            labels = volume_of(sample, 'gt_occ', 'semantics', name).to(volume.device)
            mask = mask_of(sample, counted, name)
            mask = None if mask is None else mask.to(volume.device)
            cameras = Cameras.from_data_samples([SimpleNamespace(metainfo=sample)], volume.device)
            x, y, z = labels.shape
            geometry = renderer.trace_all(cameras, (x, y, z))
            free = space.num_classes - 1
            known = torch.where(labels == UNLABELLED, free, labels.long())
            truth = renderer(SURE * F.one_hot(known[None], space.num_classes).float(), geometry)
            error = mean_depth(renderer(volume[None], geometry)) - mean_depth(truth)
            error = error[truth.no_hit < HIT].abs()
            self.add_counts(
                torch.tensor(
                    (
                        *negative_log_likelihood(volume, labels, mask),
                        error.double().sum().item(),
                        len(error),
                    ),
                    dtype=torch.float64,
                )
            )

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """``NLL`` in nats and ``depth_error`` in metres."""
        nll, voxels, error, rays = total_counts(results).tolist()
        return dict(
            NLL=nll / voxels if voxels else float('nan'),
            depth_error=error / rays if rays else float('nan'),
        )
