"""A teacher's logits on disk, one file a sample.

A cache is a folder with ``manifest.json`` and ``<two letters>/<token>.npz``.
Volumes lie in the un-augmented ego frame.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from radocc_plugin.config_file import find_config
from radocc_plugin.fileio import join_inside, write_atomically
from radocc_plugin.label_space import LabelSpace

MANIFEST = 'manifest.json'
FORMAT = 3
REMEDY = 'make them with tools/cache_teacher.py'


def teacher_hash(model: Union[dict, str], tap: Optional[dict] = None) -> str:
    """Hash of what a teacher computes: its config, test pipeline and tap.

    Args:
        model: Config of the model, or path of a config file.
        tap: Tap of its logits.
    """
    content = dict(model=model, tap=tap)
    if isinstance(model, str):
        config = Config.fromfile(find_config(model, 'teacher.model'), import_custom_modules=False)
        content.update(
            model=config.model,
            pipeline=config.get('test_dataloader', {}).get('dataset', {}).get('pipeline'),
        )
    text = json.dumps(_plain(content), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(logits: Tensor, top_k: Optional[int] = None, free_index: int = -1) -> dict:
    """Logits as arrays to be stored.

    Args:
        logits: (X, Y, Z, C).
        top_k: Keep the largest ``top_k`` logits besides the free class, and
            give all others of the voxel one common logit that preserves
            their summed probability; None keeps all.
        free_index: The free class. Density comes from its logit: it stays.

    Returns:
        Float16 (and, for indices, uint8) arrays by name.

    Raises:
        ValueError: If a logit is not finite in float16, or ``top_k`` is not
            below the number of classes without free.
    """
    half = logits.detach().cpu().half()
    if not half.isfinite().all():
        raise ValueError(
            'the logits of the teacher are not finite in float16 '
            f'(largest {float(logits.abs().max()):.3g})'
        )
    if top_k is None:
        return dict(logits=half.numpy())
    classes = logits.shape[-1]
    if not 0 < top_k < classes - 1:
        raise ValueError(f'top_k takes 1 to {classes - 2}, got {top_k}')
    others = half.float()
    others[..., free_index % classes] = -torch.inf
    ranked, indices = others.sort(dim=-1, descending=True)
    rest = ranked[..., top_k : classes - 1]  # without free, which is last
    rest = rest.logsumexp(-1) - np.log(rest.shape[-1])
    return dict(
        free=half[..., free_index].numpy(),
        values=ranked[..., :top_k].half().numpy(),
        indices=indices[..., :top_k].to(torch.uint8).numpy(),
        rest=rest.half().numpy(),
        classes=np.array([classes, free_index % classes]),
    )


def decode(arrays) -> Tensor:
    """Logits (X, Y, Z, C), float32, of what ``encode`` returned."""
    if 'logits' in arrays:
        return torch.from_numpy(arrays['logits']).float()
    classes, free = map(int, arrays['classes'])
    rest = torch.from_numpy(arrays['rest']).float()
    logits = rest[..., None].repeat(1, 1, 1, classes)
    logits.scatter_(
        -1, torch.from_numpy(arrays['indices']).long(), torch.from_numpy(arrays['values']).float()
    )
    logits[..., free] = torch.from_numpy(arrays['free']).float()
    return logits


class TeacherCache:
    """The folder of a cache.

    Args:
        root: The folder.
    """

    def __init__(self, root: Union[str, Path]) -> None:
        self.root = Path(root)

    @property
    def manifest(self) -> dict:
        """Teacher and encoding of the volumes.

        Raises:
            ValueError: If there is none, or its format is another.
        """
        path = self.root / MANIFEST
        if not path.is_file():
            raise ValueError(f'{path} is missing: no cached logits; {REMEDY}')
        manifest = json.loads(path.read_text())
        if manifest.get('format') != FORMAT:
            raise ValueError(f'{path} takes format {FORMAT}, got {manifest.get("format")}')
        return manifest

    def begin(
        self,
        teacher: str,
        checkpoint: Optional[str],
        point_cloud_range: Sequence[float],
        top_k: Optional[int],
        class_weight: Optional[Sequence[float]] = None,
        space: Optional[LabelSpace] = None,
        key_ego: Optional[str] = None,
    ) -> None:
        """Writes the manifest, or makes sure that it is the same.

        Args:
            teacher: ``teacher_hash`` of the teacher.
            checkpoint: ``file_hash`` of its checkpoint.
            point_cloud_range: Range of the volumes in metres.
            top_k: See ``encode``.
            class_weight: See ``ModelOutputs``.
            space: Classes and grid of the dataset, None if it has none.
            key_ego: Of the students whose ego frame the volumes lie in; None
                if they serve any.

        Raises:
            ValueError: If the folder holds a cache of another setting.
        """
        manifest = dict(
            format=FORMAT,
            teacher=teacher,
            checkpoint=checkpoint,
            point_cloud_range=[float(v) for v in point_cloud_range],
            top_k=top_k,
            class_weight=class_weight and list(class_weight),
            key_ego=key_ego,
        )
        if space is not None:
            manifest['label_space'] = json.loads(json.dumps(space.metainfo()))
        path = self.root / MANIFEST
        if not path.is_file():
            write_atomically(path, json.dumps(manifest, indent=2) + '\n')
        elif self.manifest != manifest:
            raise ValueError(
                f'{path} is of another setting: it has '
                f'{self.manifest}, now {manifest}; take another '
                'folder, or delete it'
            )

    def file(self, token: str) -> Path:
        """Where the volume of a sample lies."""
        return Path(join_inside(self.root, f'{token[:2]}/{token}.npz', f'sample {token}'))

    def write(
        self, token: str, logits: Tensor, top_k: Optional[int] = None, free_index: int = -1
    ) -> None:
        """Stores the logits (X, Y, Z, C) of a sample, see ``encode``."""
        buffer = io.BytesIO()
        np.savez(buffer, token=token, **encode(logits, top_k, free_index))
        write_atomically(self.file(token), buffer.getvalue())

    def read(self, token: str) -> Tensor:
        """The logits (X, Y, Z, C) of a sample, float32.

        Raises:
            ValueError: If it has none, or the file is another sample's or
                broken.
        """
        path = self.file(token)
        if not path.is_file():
            raise ValueError(f'{self.root} has no teacher logits of sample {token}; {REMEDY}')
        try:
            with np.load(path) as arrays:
                if str(arrays['token']) != token:
                    raise ValueError(f'holds the logits of sample {arrays["token"]}')
                return decode(arrays)
        except Exception as error:
            raise ValueError(f'{path}: {error}; delete it and {REMEDY}') from error


def _plain(value):
    """Config types as plain ones."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
