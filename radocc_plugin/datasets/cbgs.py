"""Class-balanced sampling of keyframes."""

from typing import List, Union

import numpy as np
from mmengine.dataset import BaseDataset

from radocc_plugin.datasets.draws import seeded
from radocc_plugin.datasets.old_infos import DETECTION_CLASSES
from radocc_plugin.registry import DATASETS


@DATASETS.register_module()
class CBGSDataset:
    """Repeats keyframes so that each detection class is met equally often.

    Every class gets the same number of draws, with replacement, from the
    keyframes that show it, and all together as many as there are pairs of a
    keyframe and a class in it. Classes that never occur are left out.
    mmdet3d's wrapper draws from the global generator and needs the metainfo
    ``classes`` to be those of the boxes.

    Args:
        dataset: Dataset, or its config, whose ``get_cat_ids`` gives indices
            of ``DETECTION_CLASSES``.
        seed: Of the draws, the same on every rank.

    Raises:
        ValueError: If no keyframe has a box, or if the dataset has frames
            without boxes (``sweeps_per_keyframe``).

    Zhu et al., arXiv 1908.09492.
    """

    def __init__(self, dataset: Union[BaseDataset, dict], seed: int = 0) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        if getattr(dataset, 'sweeps_per_keyframe', 0):
            raise ValueError(
                'CBGSDataset draws frames by their boxes; with '
                'it sweeps_per_keyframe takes 0, got '
                f'{dataset.sweeps_per_keyframe}'
            )
        self.dataset = dataset
        dataset.full_init()
        self.sample_indices = balanced_indices(
            [dataset.get_cat_ids(i) for i in range(len(dataset))], seed
        )

    @property
    def metainfo(self) -> dict:
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Nothing is left to do; for MMEngine's Runner."""

    def get_cat_ids(self, idx: int) -> set:
        return self.dataset.get_cat_ids(self.sample_indices[idx])

    def get_data_info(self, idx: int) -> dict:
        return self.dataset.get_data_info(self.sample_indices[idx])

    def __getitem__(self, idx: int) -> dict:
        with seeded(idx):
            return self.dataset[self.sample_indices[idx]]

    def __len__(self) -> int:
        return len(self.sample_indices)


def balanced_indices(labels: List[set], seed: int) -> List[int]:
    """Sample indices, repeated as :class:`CBGSDataset` says.

    Args:
        labels: Classes in each sample.
        seed: Of the draws.
    """
    samples = [
        [index for index, present in enumerate(labels) if label in present]
        for label in range(len(DETECTION_CLASSES))
    ]
    total = sum(map(len, samples))
    if not total:
        raise ValueError('CBGSDataset takes keyframes with boxes, the info file has none')
    generator = np.random.default_rng(seed)
    draws = total // len(DETECTION_CLASSES)
    return [
        index for having in samples if having for index in generator.choice(having, draws).tolist()
    ]
