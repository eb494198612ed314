"""Occ3D-nuScenes keyframes with calibrated cameras in one ego frame."""

import io
import os.path as osp
import posixpath
import pickle
from typing import List, Optional, Sequence, Set, Tuple

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from radocc_plugin import occ3d
from radocc_plugin.datasets.draws import seeded
from radocc_plugin.datasets.info_file import load_infos
from radocc_plugin.datasets.label_paths import occ3d_path
from radocc_plugin.datasets.poses import MOTION, as_matrix, cam2global, lidar2global
from radocc_plugin.datasets.sequences import (
    Keyframe,
    draw_queue,
    evenly_spaced,
    sequence_groups,
    starts_of,
)
from radocc_plugin.evaluation.lidar_origins import scene_lidar_origins
from radocc_plugin.fileio import expand_path, join_inside
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.registry import DATASETS


@DATASETS.register_module()
class Occ3DNuScenesDataset(BaseDataset):
    """nuScenes keyframes with Occ3D labels, read from an info file.

    ``get_data_info`` gives the pipeline, all matrices in float64; "ego" is
    the frame of the label volumes, which a subclass may have in the LiDAR:

    - ``token``, ``scene_name``, ``scene_token``, ``prev``, ``next``,
      ``timestamp`` (s), ``sample_idx``, ``data_root``, ``key_ego``
    - ``cam_names``, ``img_path`` (N strings), ``cam2img`` (N, 3, 3),
      ``cam2ego`` (N, 4, 4; camera at its own timestamp to the *key* ego
      frame, so it contains the ego motion in between)
    - ``lidar_path``, ``lidar_columns`` (numbers a point in the files),
      ``lidar2ego`` (4, 4; to the key ego frame), ``ego2global`` (4, 4; of the
      key ego frame), ``ego2lidar_ego`` (4, 4; to the ego frame at LiDAR time,
      that of the labels), ``lidar_sweeps`` (newest first: ``lidar_path``,
      ``lidar2ego`` to the key ego frame, ``lag`` in seconds before the
      keyframe)
    - ``lidar_origins`` (K, 3): LiDAR positions of the scene's keyframes in
      the ego frame at LiDAR time, from where RayIoU casts its rays; in test
      mode only
    - ``label_space``: classes and grid of the labels, a ``LabelSpace``
    - ``backend_args``: where the files lie
    - ``labelled``: whether its labels may be used, see ``label_every`` and
      ``sweeps_per_keyframe``
    - ``bda_mat``: identity (4, 4); a BEV augmentation replaces it
    - ``occ_path``, ``lidarseg_path`` and ``instances`` where the info has
      them; ``lidar_path`` too is missing in infos of cameras only
    - with ``adjacent`` or ``queue_length``: ``adjacent``, a list of A past
      keyframes, newest first: ``token``, ``timestamp``, ``exists``,
      ``img_path``, ``cam2ego`` (N, 4, 4; to the key ego frame of the *current*
      keyframe), ``ego2global`` (4, 4; of its own key ego frame), ``can_bus``.
      Where the scene has not begun yet, the current keyframe is repeated and
      ``exists`` is False.
    - with ``can_bus``: the vector (18,) of ``poses.can_bus_vector``, absolute
    - with ``sequences_split``: ``sequence_group_idx``, ``start_of_sequence``
      and ``ego2prev_ego`` (4, 4; ego poses at LiDAR time, from this keyframe
      to the one before; identity at a start)

    Args:
        cams: Cameras of a sample and their order.
        key_ego: Whose timestamp defines the key ego frame: ``'lidar'``, which
            is the frame of the labels, or a camera (published BEVDet takes
            ``'CAM_FRONT_LEFT'``, FB-OCC ``'CAM_FRONT'``; both ignore that the
            labels are up to 50 ms of ego motion away).
        adjacent: How many keyframes back the adjacent frames are, ascending:
            ``(1, 2)`` for BEVDet4D-stereo with one frame and one more as
            reference of the cost volume, ``range(1, 10)`` for its long-term
            variant.
        queue_length: Frames of BEVFormer's training queue including the
            current one: ``queue_length - 1`` of the last ``queue_length``
            keyframes are drawn for each sample.
        repeat_first: Whether missing past frames of the *first* scene of the
            info file are its first keyframe, and count as existing: published
            code counts back in the list and stops at its head.
        can_bus: ``'measured'``, ``'poses'`` (motion entries are 0, for data
            without the CAN bus expansion) or None.
        sequences_split: Into how many sequences each scene is cut for
            streaming; None for no streaming. FB-OCC trains with 2 and tests
            with 1.
        sweeps_per_keyframe: Frames between two keyframes that are samples
            too, after all keyframes: cameras and LiDAR without labels
            (``labelled`` is False), for distillation and losses that need
            none. Their ``prev`` is the keyframe before, and so are adjacent
            frames. Not for testing, nor for streaming.
        label_every: Only one keyframe in so many of this dataset (a subset
            counts anew) keeps its labels, for studies of training with few
            of them: in the others ``labelled`` is False and ``LoadOcc3D``
            leaves every voxel unlabelled. Not for testing.
        point_cloud_range: Part of the benchmark's range to which labels and
            masks are cropped, a box of whole voxels, metres; what is beyond
            it counts nowhere. All of it if None.
        backend_args: Where all files lie, the info file and what the
            pipeline reads, see ``fileio.read_bytes``.
        outside_root: Whether files that the infos name may lie outside of
            ``data_root``.
        **kwargs: ``ann_file``, ``data_root``, ``pipeline``, ``indices``,
            ``test_mode`` ... of MMEngine's ``BaseDataset``.

    Raises:
        ValueError: If the info file is bad, a camera is missing in it, or
            an argument is. The message names file or field.
    """

    METAINFO = occ3d.OCC3D_NUSCENES.metainfo()
    # Folder of the labels where a config names it; it is no matter of the info file.
    occ_root = ''
    # Reads the labels of this benchmark.
    LABEL_LOADER = 'radocc_plugin.LoadOcc3D'

    def __init__(
        self,
        cams: Sequence[str] = occ3d.CAMERAS,
        key_ego: str = 'lidar',
        adjacent: Sequence[int] = (),
        queue_length: int = 1,
        repeat_first: bool = False,
        can_bus: Optional[str] = None,
        sequences_split: Optional[int] = None,
        sweeps_per_keyframe: int = 0,
        label_every: int = 1,
        point_cloud_range: Optional[Sequence[float]] = None,
        backend_args: Optional[dict] = None,
        outside_root: bool = False,
        **kwargs,
    ) -> None:
        if len(set(cams)) < len(cams):
            raise ValueError(f'cams takes every camera once, got {list(cams)}')
        if key_ego not in ('lidar', *cams):
            raise ValueError(f"key_ego takes 'lidar' or one of {list(cams)}, got {key_ego!r}")
        if any(a >= b for a, b in zip((0, *adjacent), adjacent)):
            raise ValueError(
                f'adjacent takes ascending numbers of keyframes back, from 1; got {list(adjacent)}'
            )
        if queue_length < 1 or (adjacent and queue_length > 1):
            raise ValueError(
                f'queue_length takes at least 1, and 1 with adjacent frames; got {queue_length}'
            )
        if can_bus not in (None, 'measured', 'poses'):
            raise ValueError(f"can_bus takes 'measured', 'poses' or None, got {can_bus!r}")
        if sequences_split is not None and sequences_split < 1:
            raise ValueError(f'sequences_split takes None or at least 1, got {sequences_split}')
        if label_every < 1 or (label_every > 1 and kwargs.get('test_mode')):
            raise ValueError(f'label_every takes at least 1, and 1 in test mode; got {label_every}')
        if sweeps_per_keyframe < 0 or (
            sweeps_per_keyframe and (sequences_split is not None or kwargs.get('test_mode'))
        ):
            raise ValueError(
                'sweeps_per_keyframe takes at least 0, and 0 in test mode and '
                f'with sequences_split; got {sweeps_per_keyframe}'
            )
        self.cams = tuple(cams)
        self.key_ego = key_ego
        self.adjacent = tuple(adjacent)
        self.queue_length = queue_length
        self.repeat_first = repeat_first
        self.can_bus = can_bus
        self.sequences_split = sequences_split
        self.sweeps_per_keyframe = sweeps_per_keyframe
        self.label_every = label_every
        self.backend_args = backend_args
        self.outside_root = outside_root
        for name in ('data_root', 'ann_file'):
            if kwargs.get(name):
                kwargs[name] = expand_path(kwargs[name])
        lazy_init = kwargs.pop('lazy_init', False)
        super().__init__(lazy_init=True, **kwargs)
        self.label_space = LabelSpace.from_metainfo(self._metainfo, type(self).__name__).cropped(
            point_cloud_range
        )
        self._metainfo.update(self.label_space.metainfo())
        if self.label_space.frame == 'lidar' and (key_ego != 'lidar' or can_bus):
            raise ValueError(
                f'labels of {self.label_space.label_space} lie in the LiDAR '
                "frame, which takes key_ego='lidar' and can_bus=None; got "
                f'{key_ego!r} and {can_bus!r}'
            )
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> List[dict]:
        infos = load_infos(self.ann_file, self.backend_args, self.data_root)
        if not infos['data_list']:
            raise ValueError(f'info file {self.ann_file} holds no sample')
        for name in ('scene_token', 'scene_name', 'prev'):
            if name not in infos['data_list'][0]:
                raise ValueError(
                    f'samples of info file {self.ann_file} have no {name}; '
                    'put the tables of nuScenes (<version>/sample.json, '
                    'scene.json) into the data root, or write the file with '
                    'tools/create_data.py'
                )
        # as in BaseDataset: the file's metainfo has the lowest priority
        for name, value in infos.get('metainfo', {}).items():
            self._metainfo.setdefault(name, value)
        if self.test_mode:
            self._add_lidar_origins(infos['data_list'])
        keyframes = infos['data_list']
        sweeps = self._pop_sweeps(keyframes)
        self._pickled_keyframes = pickle.dumps([Keyframe.of(info) for info in keyframes + sweeps])
        return keyframes + sweeps

    def _pop_sweeps(self, keyframes: List[dict]) -> List[dict]:
        """The frames between keyframes that are asked for, as samples."""
        between = [(info, info.pop('sweeps', ())) for info in keyframes]
        most = max(len(frames) for _, frames in between)
        if self.sweeps_per_keyframe > most:
            raise ValueError(
                f'sweeps_per_keyframe={self.sweeps_per_keyframe}, but info '
                f'file {self.ann_file} has at most {most}; write it again '
                'with tools/create_data.py --sweeps-per-keyframe'
            )
        return [
            dict(
                frame,
                labelled=False,
                scene_name=info['scene_name'],
                scene_token=info['scene_token'],
                prev=info['token'],
                next='',
            )
            for info, frames in between
            for frame in evenly_spaced(frames, self.sweeps_per_keyframe)
        ]

    def _add_lidar_origins(self, data_list: List[dict]) -> None:
        try:
            origins = scene_lidar_origins(
                [
                    dict(
                        scene_name=info['scene_name'],
                        volume2global=self._volume2global(info),
                        lidar2global=lidar2global(info['ego2global'], info['lidar_points']),
                    )
                    for info in data_list
                ],
                self.label_space.point_cloud_range,
            )
        except KeyError as error:
            raise ValueError(
                f'a sample of info file {self.ann_file} lacks {error}; write '
                'it again with tools/create_data.py'
            ) from error
        for info, points in zip(data_list, origins):
            info['lidar_origins'] = points

    def full_init(self) -> None:
        """Reads the info file, once."""
        if not self._fully_initialized:
            super().full_init()
            # New strings: those among the infos would keep their memory.
            self._keyframes = pickle.loads(self._pickled_keyframes)
            del self._pickled_keyframes
            self._index_keyframes(self._indices)

    def _serialize_data(self) -> Tuple[np.ndarray, np.ndarray]:
        """As MMEngine's; each info goes as soon as it is serialised."""
        buffer, ends = io.BytesIO(), []
        self.data_list.reverse()
        while self.data_list:
            buffer.write(pickle.dumps(self.data_list.pop(), protocol=4))
            ends.append(buffer.tell())
        return np.frombuffer(buffer.getbuffer(), np.uint8), np.array(ends)

    def _index_keyframes(self, indices) -> None:
        """Cuts the look-up to a subset, as ``BaseDataset`` does the infos."""
        if isinstance(indices, int):
            part = slice(indices) if indices >= 0 else slice(indices, None)
            self._keyframes = self._keyframes[part]
        elif indices is not None:
            self._keyframes = [self._keyframes[i] for i in indices]
        self._index = {k.token: i for i, k in enumerate(self._keyframes)}
        self.sequence_groups = sequence_groups(
            [k.scene_token for k in self._keyframes], self.sequences_split or 1
        )
        self._starts = starts_of(self.sequence_groups)

    def get_subset_(self, indices) -> None:
        """Keeps the samples of ``indices`` only, as in ``BaseDataset``."""
        super().get_subset_(indices)
        self._index_keyframes(indices)

    def get_subset(self, indices) -> 'Occ3DNuScenesDataset':
        """The samples of ``indices`` as a dataset, as in ``BaseDataset``."""
        subset = super().get_subset(indices)
        subset._index_keyframes(indices)
        return subset

    def label_path(self, info: dict) -> str:
        """Label file of a sample of a labelled split, in the data root."""
        return occ3d_path(info)

    @force_full_init
    def labelled(self) -> np.ndarray:
        """Which samples have labels that may be used, bool, (len(self),)."""
        return np.array(
            [
                frame.labelled and index % self.label_every == 0
                for index, frame in enumerate(self._keyframes)
            ]
        )

    @force_full_init
    def get_cat_ids(self, idx: int) -> Set[int]:
        """Detection classes with a LiDAR or radar point in the sample."""
        return set(self._keyframes[idx].labels)

    def __getitem__(self, idx: int) -> dict:
        with seeded(idx):
            return super().__getitem__(int(idx))

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        try:
            results = self._parse(info)
            if self.can_bus:
                results['can_bus'] = self._can_bus(info)
            offsets = self.adjacent
            if self.queue_length > 1:
                offsets = draw_queue(self.queue_length)
            if offsets:
                results['adjacent'] = self._adjacent(idx, info, results, offsets)
            if self.sequences_split:
                results.update(self._sequence(idx, info))
            return results
        except KeyError as error:
            raise ValueError(
                f'sample {info.get("token", idx)} of info file '
                f'{self.ann_file} lacks {error}; write it again with '
                'tools/create_data.py'
            ) from error

    def _parse(self, info: dict) -> dict:
        images = self._select_cameras(info)
        ego2global = self._key_ego2global(info)
        global2ego = np.linalg.inv(ego2global)
        lidar2ego = as_matrix(info['lidar_points']['lidar2ego'])
        if self.label_space.frame == 'lidar':
            lidar2ego = np.eye(4)
        elif self.key_ego != 'lidar':
            lidar2ego = global2ego @ lidar2global(info['ego2global'], info['lidar_points'])
        results = {
            name: info[name]
            for name in (
                'sample_idx',
                'token',
                'timestamp',
                'scene_name',
                'scene_token',
                'prev',
                'next',
            )
        }
        results.update(
            labelled=info.get('labelled', True) and info['sample_idx'] % self.label_every == 0,
            label_space=self.label_space,
            backend_args=self.backend_args,
            data_root=self.data_root,
            key_ego=self.key_ego,
            cam_names=list(self.cams),
            img_path=[self._join(i['img_path']) for i in images.values()],
            cam2img=np.stack([as_matrix(i['cam2img']) for i in images.values()]),
            cam2ego=self._cam2ego(info, ego2global),
            lidar_columns=info['lidar_points'].get('num_pts_feats', 5),
            lidar2ego=lidar2ego,
            ego2global=ego2global,
            ego2lidar_ego=np.eye(4)
            if self.key_ego == 'lidar'
            else np.linalg.inv(as_matrix(info['ego2global'])) @ ego2global,
            lidar_sweeps=[
                dict(
                    lidar_path=self._join(sweep['lidar_path']),
                    lidar2ego=global2ego @ lidar2global(sweep['ego2global'], sweep),
                    lag=info['timestamp'] - sweep['timestamp'],
                )
                for sweep in info['lidar_sweeps']
            ],
            bda_mat=np.eye(4),
        )
        if 'lidar_path' in info['lidar_points']:
            results['lidar_path'] = self._join(info['lidar_points']['lidar_path'])
        if 'occ_path' in info:  # of a split with public labels
            label = self.label_path(info)
            if self.occ_root:
                label = posixpath.relpath(label, self.occ_root)
            results['occ_path'] = self._join(label, osp.join(self.data_root, self.occ_root))
        if 'lidarseg_path' in info:
            results['lidarseg_path'] = self._join(info['lidarseg_path'])
        for name in ('instances', 'lidar_origins'):
            if name in info:
                results[name] = info[name]
        return results

    def _select_cameras(self, info: dict) -> dict:
        missing = [name for name in self.cams if name not in info['images']]
        if missing:
            raise ValueError(
                f'cams asks for {", ".join(missing)}, which sample '
                f'{info["token"]} of info file {self.ann_file} lacks; it has '
                f'{", ".join(info["images"])}'
            )
        return {name: info['images'][name] for name in self.cams}

    def _volume2global(self, info: dict) -> np.ndarray:
        """Frame of the labels to global, both at LiDAR time."""
        if self.label_space.frame == 'lidar':
            return lidar2global(info['ego2global'], info['lidar_points'])
        return as_matrix(info['ego2global'])

    def _key_ego2global(self, info: dict) -> np.ndarray:
        if self.key_ego == 'lidar':
            return self._volume2global(info)
        image = info['images'][self.key_ego]
        return cam2global(info, image) @ np.linalg.inv(as_matrix(image['cam2ego']))

    def _cam2ego(self, info: dict, ego2global: np.ndarray) -> np.ndarray:
        """Cameras of a keyframe to a key ego frame, shape (N, 4, 4)."""
        return np.linalg.inv(ego2global) @ np.stack(
            [cam2global(info, image) for image in self._select_cameras(info).values()]
        )

    def _can_bus(self, info: dict) -> np.ndarray:
        vector = as_matrix(info['can_bus']).copy()
        # Files written before hold the four components of the quaternion.
        vector[3:7] = vector[3]
        if self.can_bus == 'poses':
            vector[MOTION] = 0
        elif np.isnan(vector).any():
            raise ValueError(
                f"can_bus='measured', but info file {self.ann_file} was "
                'written without the CAN bus expansion; install it as '
                'can_bus/ in the data root and write the file again, or set '
                "can_bus='poses'"
            )
        return vector

    def _adjacent(self, idx: int, info: dict, results: dict, offsets: Sequence[int]) -> List[dict]:
        """Past keyframes, newest first; see the class."""
        frames, past, reached = [], idx, 0
        for offset in offsets:
            while past is not None and reached < offset:
                past, reached = self.previous(past), reached + 1
            index = past
            if (
                past is None
                and self.repeat_first
                and info['scene_token'] == self._keyframes[0].scene_token
            ):
                index = 0
            adjacent = info if index is None else super().get_data_info(index)
            frame = dict(
                token=adjacent['token'],
                timestamp=adjacent['timestamp'],
                exists=index is not None,
                img_path=[
                    self._join(image['img_path'])
                    for image in self._select_cameras(adjacent).values()
                ],
                cam2ego=self._cam2ego(adjacent, results['ego2global']),
                ego2global=self._key_ego2global(adjacent),
            )
            if self.can_bus:
                frame['can_bus'] = self._can_bus(adjacent)
            frames.append(frame)
        return frames

    @force_full_init
    def previous(self, idx: int) -> Optional[int]:
        """Index of the keyframe before, None at the start of a scene.

        Raises:
            ValueError: If the dataset does not hold it.
        """
        keyframe = self._keyframes[idx]
        if not keyframe.prev:
            return None
        if keyframe.prev not in self._index:
            raise ValueError(
                f'keyframe {keyframe.prev} before {keyframe.token} is not in '
                f'info file {self.ann_file} or not in the subset of it; '
                'streaming and adjacent frames take whole scenes'
            )
        return self._index[keyframe.prev]

    def _sequence(self, idx: int, info: dict) -> dict:
        start = bool(self._starts[idx])
        ego2prev_ego = np.eye(4)
        if not start:
            if self.previous(idx) != idx - 1:
                raise ValueError(
                    f'sample {info["token"]} of info file {self.ann_file} '
                    'does not follow the keyframe before it; streaming takes '
                    'scenes in the order of time'
                )
            previous = super().get_data_info(idx - 1)
            ego2prev_ego = np.linalg.inv(self._volume2global(previous)) @ self._volume2global(info)
        return dict(
            sequence_group_idx=int(self.sequence_groups[idx]),
            start_of_sequence=start,
            ego2prev_ego=ego2prev_ego,
        )

    def _join(self, path: str, root: Optional[str] = None) -> str:
        root = self.data_root if root is None else root
        if self.outside_root:
            # infos may have been written on Windows
            return osp.join(root, path.replace('\\', '/'))
        try:
            return join_inside(root, path, f'info file {self.ann_file}')
        except ValueError as error:
            raise ValueError(f'{error}; outside_root=True of the dataset allows it') from error
