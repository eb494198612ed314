"""Where the label files of the nuScenes benchmarks lie in a data root."""

import os.path as osp

SURROUNDOCC_ROOT = 'nuscenes_occ/samples'
OPENOCC_ROOT = 'openocc_v2'


def occ3d_path(info: dict) -> str:
    """``gts/<scene>/<token>/labels.npz``, as the info says."""
    return info['occ_path']


def surroundocc_path(info: dict, occ_root: str = SURROUNDOCC_ROOT) -> str:
    """``<occ_root>/<file name of the sweep>.npy``."""
    sweep = osp.basename(info['lidar_points']['lidar_path'])
    return f'{occ_root}/{sweep}.npy'


def openocc_path(info: dict, occ_root: str = OPENOCC_ROOT) -> str:
    """``<occ_root>/<scene>/<token>/labels.npz``."""
    return f'{occ_root}/{info["scene_name"]}/{info["token"]}/labels.npz'


LABEL_PATHS = {
    'occ3d-nuscenes': occ3d_path,
    'surroundocc': surroundocc_path,
    'openocc': openocc_path,
}
