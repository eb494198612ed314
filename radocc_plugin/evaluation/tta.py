"""Test-time augmentation: averaged class probabilities of several views."""

import copy
from itertools import product
from typing import List, Optional, Sequence

import torch
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from radocc_plugin.distillation.tap import build_tap
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import OccData

VIEWS = ('flip_x', 'flip_y', 'flip_image', 'scale', 'identity')
SCALES = (-0.04, 0.0, 0.04)
_AUGMENT_IMAGES = 'radocc_plugin.AugmentMultiViewImages'
_PACK = 'radocc_plugin.PackOccInputs'


@MODELS.register_module()
class OccTTAModel(BaseTTAModel):
    """Averages softmax probabilities in the un-augmented ego frame.

    Runs the model once a view, mirrors the probabilities of views with a
    flipped ego frame back, and takes the likeliest class of their mean. The
    merged sample is that of the view whose ego frame is not augmented, with
    ``pred_occ.semantics`` and ``pred_occ.semantics_occupied`` (the likeliest
    class other than free), both (X, Y, Z) uint8. With one plain view the
    labels are the model's own.

    A model that keeps state from one call to the next (``is_streaming``) would
    see every view as a frame of its own: it takes one view.

    Args:
        module: The model, or a distiller around it.
        tap: Where its logits come from, see ``OccTap``; None for a model
            that brings its ``occ_tap``.
        data_preprocessor: See BaseTTAModel.

    Raises:
        ValueError: If there is no tap, no view has a plain ego frame, an ego
            frame is augmented by more than flips, or a model that streams
            gets several views.
    """

    def __init__(self, module, tap: Optional[dict] = None, data_preprocessor=None) -> None:
        super().__init__(module, data_preprocessor)
        # a distiller answers with its student
        whole: nn.Module = self.module
        self._tapped: nn.Module = getattr(whole, 'student', whole)
        self.tap = build_tap(tap, self._tapped, 'tap')

    def test_step(self, data: dict) -> List:
        """Merged samples of a batch of views, see BaseTTAModel."""
        if len(data['inputs']) > 1 and getattr(self._tapped, 'is_streaming', False):
            raise ValueError(
                f'{type(self._tapped).__name__} carries its past from call to '
                'call and takes every view for a frame of its own; test it '
                'with one view'
            )
        views = []
        for view in range(len(data['inputs'])):
            batch = {key: value[view] for key, value in data.items()}
            with self.tap.record(self._tapped) as outputs:
                samples = self.module.test_step(batch)
            probabilities = self.tap.read(outputs).float().softmax(-1)
            for sample, volume in zip(samples, probabilities):
                sample.set_field(unflip(volume, sample.bda_mat), 'probabilities', field_type='data')
            views.append(samples)
        return self.merge_preds(list(zip(*views)))

    def merge_preds(self, data_samples_list: Sequence[Sequence]) -> List:
        """One sample of the views of each; see the class."""
        merged = []
        for views in data_samples_list:
            plain = [v for v in views if not _flipped_axes(v.bda_mat)]
            if not plain:
                raise ValueError(
                    'one view of tta_pipeline must leave the ego frame as it '
                    f'is; sample {views[0].get("token")} has none'
                )
            mean = sum(v.probabilities for v in views) / len(views)
            sample = plain[0]
            del sample.probabilities
            sample.pred_occ = OccData(
                semantics=mean.argmax(-1).to(torch.uint8),
                semantics_occupied=mean[..., :-1].argmax(-1).to(torch.uint8),
            )
            merged.append(sample)
        return merged


def unflip(volume: Tensor, bda_mat) -> Tensor:
    """A volume (X, Y, Z, ...) of a mirrored ego frame in the plain one.

    Raises:
        ValueError: If ``bda_mat`` (4, 4) does more than mirror x or y.
    """
    return volume.flip(_flipped_axes(bda_mat))


def _flipped_axes(bda_mat) -> List[int]:
    matrix = torch.as_tensor(bda_mat).double().cpu()
    signs = matrix.diagonal().sign()
    if not torch.equal(matrix, signs.diag()) or signs[2:].min() < 1:
        raise ValueError(
            'test-time augmentation takes ego frames that are '
            f'mirrored in x and y only, got bda_mat {matrix}'
        )
    return (signs[:2] < 0).nonzero().squeeze(1).tolist()


def tta_pipeline(
    test_pipeline: Sequence[dict],
    views: Sequence[str] = ('flip_x', 'flip_y', 'flip_image'),
    scales: Sequence[float] = SCALES,
) -> List[dict]:
    """The test pipeline with every combination of the named augmentations.

    Args:
        test_pipeline: Configs of the plain test pipeline, which has one
            ``AugmentMultiViewImages`` and ends with ``PackOccInputs``.
        views: Of ``'flip_x'``, ``'flip_y'`` (mirrored ego frame),
            ``'flip_image'`` and ``'scale'``; ``'identity'`` adds none. The
            three flips make 8 views.
        scales: What ``'scale'`` adds to the resize factor of the images.

    Returns:
        A pipeline whose last transform is ``TestTimeAug``.

    Raises:
        ValueError: If a view is unknown or the pipeline is another.
    """
    unknown = [view for view in views if view not in VIEWS]
    if unknown:
        raise ValueError(f'views take {VIEWS}, got {unknown}')
    types = [step['type'] for step in test_pipeline]
    if types.count(_AUGMENT_IMAGES) != 1 or types[-1] != _PACK:
        raise ValueError(
            f'test-time augmentation takes a test pipeline with one '
            f'{_AUGMENT_IMAGES} that ends with {_PACK}, got {types}; give the '
            'config a tta_pipeline of its own'
        )
    place = types.index(_AUGMENT_IMAGES)

    def choices(view):
        return (0.0, 1.0) if view in views else (0.0,)

    plain = copy.deepcopy(dict(test_pipeline[place]))
    images = [
        dict(plain, flip_prob=flip, resize=(scale, scale))
        for scale, flip in product(scales if 'scale' in views else (0.0,), choices('flip_image'))
    ]
    ego_frames = [
        dict(type='radocc_plugin.AugmentBEV', flip_x_prob=x, flip_y_prob=y)
        for x, y in product(choices('flip_x'), choices('flip_y'))
    ]
    between = [[copy.deepcopy(dict(step))] for step in test_pipeline[place + 1 : -1]]
    augment = dict(
        type='TestTimeAug',
        transforms=[images, *between, ego_frames, [copy.deepcopy(dict(test_pipeline[-1]))]],
    )
    return [*map(copy.deepcopy, map(dict, test_pipeline[:place])), augment]
