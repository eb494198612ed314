"""The camera images that still need a segment map."""

from pathlib import Path
from typing import Dict, Sequence, Union

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from torch.utils.data import Dataset

from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.fileio import read_image
from radocc_plugin.registry import DATASETS
from radocc_plugin.segment_maps import is_complete, segment_path


def image_paths(ann_files: Union[str, Sequence[str]]) -> Dict[str, str]:
    """Every camera image of info files once, of sweeps too, sorted.

    Args:
        ann_files: Info file or files.

    Returns:
        Image path relative to the data root -> camera name.
    """
    paths = {}
    for ann_file in [ann_files] if isinstance(ann_files, str) else ann_files:
        for info in load_infos(ann_file)['data_list']:
            for frame in (info, *info.get('sweeps', ())):
                for name, camera in frame['images'].items():
                    paths[camera['img_path']] = name
    return dict(sorted(paths.items()))


@DATASETS.register_module()
class CameraImages(Dataset):
    """Camera images of info files without those that have a complete map.

    An item is ``dict(inputs=RGB (H, W, 3) uint8, img_path=str)``.

    Args:
        ann_file: Info file, or several.
        data_root: Folder that the image paths start in.
        segments_root: Folder of the maps. Half-written maps count as missing.
    """

    metainfo: dict = {}

    def __init__(
        self, ann_file: Union[str, Sequence[str]], data_root: str, segments_root: str
    ) -> None:
        self.data_root = data_root
        todo = []
        if is_main_process():
            paths = image_paths(ann_file)
            todo = [path for path in paths if not is_complete(segment_path(segments_root, path))]
            print_log(
                f'{len(paths)} images, {len(paths) - len(todo)} already done', logger='current'
            )
        # The first rank decides for all: while one lists, another may write.
        todo = [todo]
        broadcast_object_list(todo)
        self.img_paths = todo[0]

    def __len__(self) -> int:
        return len(self.img_paths)

    def __getitem__(self, index: int) -> dict:
        img_path = self.img_paths[index]
        image = read_image(Path(self.data_root) / img_path)
        return dict(inputs=np.array(image), img_path=img_path)
