"""Labels in the place of a teacher: rendering supervision, and a control."""

import math
from typing import Mapping, Optional, Sequence

import torch
from torch import Tensor

from radocc_plugin.label_space import UNLABELLED, LabelSpace
from radocc_plugin.losses import ModelOutputs


class LabelTeacher:
    """Takes the place of a ``FrozenTeacher`` that is always right.

    Its logits are those of the labels: what no teacher on these frames can
    beat, hence the control of any rendered loss (GaussRender supervises so).

    Args:
        num_classes: Classes C of the logits, free last.
        confidence: Probability of the label; the rest is shared out among
            the other classes.

    Raises:
        ValueError: If ``confidence`` is no probability above that of chance.
    """

    features: Mapping[str, dict] = {}
    # That of the samples, always.
    label_space: Optional[LabelSpace] = None

    def __init__(self, num_classes: int, confidence: float = 0.999) -> None:
        if not 1 / num_classes < confidence < 1:
            raise ValueError(
                'teacher.labels.confidence takes a probability between 1 / '
                f'num_classes and 1, got {confidence}'
            )
        self.num_classes = num_classes
        self.confidence = confidence

    def prepare(self, data_preprocessor=None) -> None:
        """Nothing to build, see ``FrozenTeacher``."""

    def outputs(self, inputs: dict, data_samples: Sequence, device: torch.device) -> ModelOutputs:
        """Logits (B, X, Y, Z, C) of the labels; unlabelled voxels of a
        labelled frame count as free, as what lies beyond a turned volume.

        Raises:
            ValueError: If a sample has no labels, or one of another space.
        """
        for sample in data_samples:
            if 'gt_occ' not in sample or not bool((sample.gt_occ.semantics != UNLABELLED).any()):
                raise ValueError(
                    'teacher.labels takes frames with labels, sample '
                    f'{sample.metainfo.get("token", "?")} has none'
                )
        labels = torch.stack([s.gt_occ.semantics for s in data_samples])
        labels = labels.to(device).long()
        labels = labels.masked_fill(labels == UNLABELLED, self.num_classes - 1)
        if int(labels.max()) >= self.num_classes:
            raise ValueError(
                f'teacher.labels.num_classes={self.num_classes}, but a label is {int(labels.max())}'
            )
        return ModelOutputs(self.logits_of(labels))

    def logits_of(self, labels: Tensor) -> Tensor:
        """Log-probabilities, (...) -> (..., C)."""
        other = math.log((1 - self.confidence) / (self.num_classes - 1))
        logits = torch.full((*labels.shape, self.num_classes), other, device=labels.device)
        return logits.scatter(-1, labels[..., None], math.log(self.confidence))
