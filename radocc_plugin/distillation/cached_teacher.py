"""A teacher whose logits are read from disk."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from radocc_plugin.distillation.teacher_cache import TeacherCache, teacher_hash
from radocc_plugin.fileio import file_hash
from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.geometry.frames import transform_points
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.losses import ModelOutputs

RESAMPLE = ('nearest', 'trilinear')
# Logit of free, against 0, where a moved volume shows what it never saw.
OUTSIDE_FREE = 10.0


def to_augmented_frame(
    logits: Tensor,
    bda_mat: np.ndarray,
    point_cloud_range: Sequence[float],
    resample: Optional[str] = None,
    free_index: int = -1,
) -> Tensor:
    """A volume of the key ego frame in the augmented ego frame.

    Mirroring maps the grid onto itself and is exact. Under a rotation, scale
    or translation every cell of the result takes the logits at its centre's
    place in the key frame; cells from outside the volume become free.

    Args:
        logits: (X, Y, Z, C) over ``point_cloud_range``.
        bda_mat: Key ego to augmented ego frame, (4, 4).
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)``, metres.
        resample: ``nearest`` or ``trilinear`` (of logits); None allows
            mirroring only.
        free_index: Class of free space.

    Raises:
        ValueError: If the volume must be resampled and is not to be.
    """
    bda_mat = np.asarray(bda_mat, np.float64)
    signs = np.sign(np.diag(bda_mat)[:3])
    if np.allclose(bda_mat, np.diag([*signs, 1.0]), atol=1e-6):
        axes = [axis for axis in range(3) if signs[axis] < 0]
        symmetric = all(np.isclose(point_cloud_range[a], -point_cloud_range[a + 3]) for a in axes)
        if symmetric:
            return logits.flip(axes) if axes else logits
    if resample is None:
        raise ValueError(
            'bda_mat rotates, scales or shifts the ego frame, or mirrors it '
            'about another plane than the middle of the grid, and the cached '
            'volumes do not follow exactly; set teacher.cache.resample to one '
            f'of {RESAMPLE}, or take AugmentBEV with flips only'
        )
    grid = VoxelGrid(tuple(point_cloud_range), logits.shape[:3])
    augmented2ego = torch.as_tensor(
        np.linalg.inv(bda_mat), dtype=torch.float32, device=logits.device
    )
    places = transform_points(augmented2ego, grid.centres(logits.device).flatten(0, 2))
    minimum = places.new_tensor(grid.minimum)
    extent = places.new_tensor(grid.maximum) - minimum
    places = (places - minimum) / extent * 2 - 1
    moved = F.grid_sample(
        logits.permute(3, 0, 1, 2)[None],
        # grid_sample wants the fastest axis first
        places.flip(-1).view(1, *logits.shape[:3], 3),
        mode='bilinear' if resample == 'trilinear' else resample,
        padding_mode='border',
        align_corners=False,
    )[0].permute(1, 2, 3, 0)
    outside = (places.abs() > 1).any(-1).view(logits.shape[:3])
    free = logits.new_zeros(logits.shape[-1])
    free[free_index] = OUTSIDE_FREE
    return torch.where(outside[..., None], free, moved)


class CachedTeacher:
    """Takes the place of a ``FrozenTeacher``; builds no model.

    The cache is opened at the first use, so that testing never needs it.
    The teacher saw the un-augmented images.

    Args:
        root: Folder that ``tools/cache_teacher.py`` wrote.
        model: The teacher's model, checked against the cache; a config or
            the path of a config file. None takes any cache.
        checkpoint: Its checkpoint, checked against the cache; where the file
            is absent, a warning says that it was not.
        tap: Tap of its logits, checked too.
        resample: See ``to_augmented_frame``.
        free_index: Class of free space.

    Raises:
        ValueError: If ``resample`` is unknown.
    """

    features: Mapping[str, dict] = {}

    def __init__(
        self,
        root: str,
        model: Union[None, dict, str] = None,
        checkpoint: Optional[str] = None,
        tap: Optional[dict] = None,
        resample: Optional[str] = None,
        free_index: int = -1,
    ) -> None:
        if resample not in (None, *RESAMPLE):
            raise ValueError(
                f'teacher.cache.resample takes None or one of {RESAMPLE}, got {resample!r}'
            )
        self.cache = TeacherCache(root)
        self.config = model
        self.checkpoint = checkpoint
        self.tap_config = tap
        self.resample = resample
        self.free_index = free_index
        # Of the cached volumes, once it is open and where its manifest knows.
        self.label_space: Optional[LabelSpace] = None

    def prepare(self, data_preprocessor=None) -> None:
        """Opens the cache, before anything is trained.

        Args:
            data_preprocessor: Ignored: the teacher saw its own images.

        Raises:
            ValueError: If there is none, or it is another teacher's.
        """
        space = self._manifest.get('label_space')
        self.label_space = space and LabelSpace.from_metainfo(space, str(self.cache.root))

    def outputs(self, inputs: dict, data_samples: Sequence, device: torch.device) -> ModelOutputs:
        """Its occupancy logits for a batch, in the augmented ego frame.

        Raises:
            ValueError: If the cache is another teacher's, misses a sample, or
                lies in another ego frame than the samples.
        """
        self.prepare()
        volumes = []
        for sample in data_samples:
            if 'token' not in sample.metainfo:
                raise ValueError(
                    'a teacher cache needs the metainfo token; '
                    'add it to meta_keys of the packing '
                    'transform'
                )
            self._check_frame(sample.metainfo)
            volumes.append(
                to_augmented_frame(
                    self.cache.read(sample.metainfo['token']).to(device),
                    sample.metainfo.get('bda_mat', np.eye(4)),
                    self._manifest['point_cloud_range'],
                    self.resample,
                    self.free_index,
                )
            )
        return ModelOutputs(torch.stack(volumes), class_weight=self._manifest['class_weight'])

    def _check_frame(self, metainfo: dict) -> None:
        ours, theirs = metainfo.get('key_ego'), self._manifest['key_ego']
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f'the volumes in {self.cache.root} lie in the ego frame at '
                f'the time of {theirs}, the samples have key_ego={ours!r}; '
                'cache the teacher with the config of this student'
            )

    @cached_property
    def _manifest(self) -> dict:
        """That of the cache, checked once."""
        manifest = self.cache.manifest
        if self.config is None:
            return manifest
        found: Dict[str, Optional[str]] = dict(teacher=teacher_hash(self.config, self.tap_config))
        if self.checkpoint is None or Path(self.checkpoint).is_file():
            found['checkpoint'] = self.checkpoint and file_hash(self.checkpoint)
        else:
            print_log(
                f'{self.checkpoint} is absent: not checked that the logits in '
                f'{self.cache.root} are of this checkpoint',
                'current',
                logging.WARNING,
            )
        for name, value in found.items():
            if manifest[name] != value:
                raise ValueError(
                    f'{self.cache.root} holds the logits of another {name} '
                    f'(hash {manifest[name]}) than teacher.'
                    f'{"model" if name == "teacher" else name} (hash {value})'
                )
        return manifest
