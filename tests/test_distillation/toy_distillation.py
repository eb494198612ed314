"""A toy student that nobody adapted, its data and its training."""

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from radocc_plugin.losses import masked_cross_entropy
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData, OccDataSample

SHAPE, CLASSES = (10, 10, 4), 4


@MODELS.register_module(force=True)
class ToyOccStudent(BaseModel):
    """Image mean -> volume; with batch norm and dropout, as real ones.

    Args:
        plain: Without batch norm and dropout: equal in any batch.
        checkpointing: None, or ``use_reentrant`` of the checkpointed part.
    """

    def __init__(self, width=8, plain=False, checkpointing=None, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.checkpointing = checkpointing
        regular = [] if plain else [nn.BatchNorm1d(width)]
        self.encode = nn.Sequential(
            nn.Linear(3, width), *regular, nn.ReLU(), *([] if plain else [nn.Dropout(0.2)])
        )
        self.head = nn.Linear(width, CLASSES * int(np.prod(SHAPE)))
        self.volume = nn.Unflatten(1, (CLASSES, *SHAPE))

    def _checkpointed(self, images):
        if self.checkpointing is None or not self.training:
            return self.head(self.encode(images))
        return checkpoint(
            lambda x: self.head(self.encode(x)),
            images.requires_grad_(),
            use_reentrant=self.checkpointing,
        )

    def forward(self, inputs, data_samples=None, mode='tensor'):
        images = inputs['imgs']
        if isinstance(images, list):
            images = torch.stack(images)
        volume = self._checkpointed(images.mean((1, 3, 4)))
        logits = self.volume(volume).permute(0, 2, 3, 4, 1)
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return data_samples
        labels = torch.stack([s.gt_occ.semantics for s in data_samples])
        return dict(loss_occ=masked_cross_entropy(logits, labels))


class ToyData(Dataset):
    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        sample = OccDataSample(
            metainfo=dict(
                cam2img=np.array([[[20.0, 0, 16], [0, 20, 9], [0, 0, 1]]]),
                cam2ego=np.array(
                    [[[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]]]
                ),
                ori_shape=(18, 32),
                token=f'{index:04d}sample',
            )
        )
        sample.gt_occ = OccData(
            semantics=torch.randint(0, 4, SHAPE, generator=generator),
            mask_camera=torch.ones(SHAPE, dtype=torch.bool),
        )
        sample.segments = torch.randint(0, 4, (1, 6, 10), generator=generator, dtype=torch.int32)
        return dict(
            inputs=dict(imgs=torch.rand(1, 3, 4, 4, generator=generator)), data_samples=sample
        )


STUDENT = dict(type='radocc_plugin.ToyOccStudent')
TAP = dict(module='head', layout='b (c x y z)', axes=dict(c=4, x=10, y=10))


HIDDEN = dict(module='encode', layout='b c')
FEATURES = dict(student_features=dict(hidden=HIDDEN), teacher_features=dict(hidden=HIDDEN))


def feature_loss(loss_weight=1.0, **kwargs):
    return dict(
        type='radocc_plugin.FeatureAlignment',
        student_channels=8,
        teacher_channels=16,
        feature='hidden',
        loss_weight=loss_weight,
        **kwargs,
    )


def distilled(teacher=None, rdc=1.0, rsc=1.0, feature=None, **kwargs):
    """Config of a distiller; with a feature loss if it has a weight."""
    config = _distilled(teacher, rdc, rsc)
    if feature is not None:
        config.update(FEATURES)
        config['losses']['feature'] = feature_loss(feature)
    config.update(kwargs)
    return config


def batch_of(indices=(0, 1)):
    """Inputs and samples of a batch."""
    items = [ToyData()[i] for i in indices]
    inputs = dict(imgs=torch.stack([i['inputs']['imgs'] for i in items]))
    return inputs, [i['data_samples'] for i in items]


def _distilled(teacher, rdc, rsc):
    return dict(
        type='radocc_plugin.RadOccDistiller',
        student=STUDENT,
        student_tap=TAP,
        teacher=dict(
            model=dict(type='radocc_plugin.ToyOccStudent', width=16), checkpoint=teacher, tap=TAP
        ),
        renderer=dict(
            type='radocc_plugin.VolumeRenderer',
            point_cloud_range=(-4, -4, -1, 4, 4, 2.2),
            render_size=(6, 10),
            max_rays=50,
        ),
        losses=dict(
            depth=dict(type='radocc_plugin.RenderedDepthConsistency', loss_weight=rdc),
            semantics=dict(type='radocc_plugin.RenderedSemanticConsistency', loss_weight=rsc),
        ),
    )


def run(work_dir, model, epochs=2, optim=None, **kwargs):
    """A Runner that has trained."""
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=ToyData(),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-2, weight_decay=1e-2), **(optim or {})
        ),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=3),
        experiment_name=f'toy_{work_dir.name}',
        log_level='ERROR',
        **kwargs,
    )
    runner.train()
    return runner


def train(*args, **kwargs):
    """The model that ``run`` has trained."""
    return run(*args, **kwargs).model


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
