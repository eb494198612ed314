"""Recordings for the rerun viewer: frames to fly through, on a timeline."""

from pathlib import Path
from typing import Iterable, Optional, Union

import numpy as np

from radocc_plugin.datasets.transforms.lidar import drop_ego_vehicle
from radocc_plugin.fileio import read_image, read_lidar_file
from radocc_plugin.label_space import label_space_of
from radocc_plugin.structures import OccDataSample
from radocc_plugin.visualization.errors import KIND_COLORS, KINDS, error_kinds
from radocc_plugin.visualization.movies import renamed_when_done

_VOLUMES = dict(ground_truth='gt_occ', prediction='pred_occ')


def import_rerun():
    """The package ``rerun``.

    Raises:
        ImportError: If it is missing or older than 0.23; says what to
            install.
    """
    try:
        import rerun
    except ImportError as error:
        raise ImportError(
            '.rrd recordings need the package rerun-sdk: install the extra '
            "[viz] of radocc_plugin, or pip install 'rerun-sdk>=0.23' "
            f"'pyarrow<22' ({error})"
        ) from error
    if not hasattr(rerun, 'set_time'):
        raise ImportError(f'.rrd recordings need rerun-sdk>=0.23, got {rerun.__version__}')
    return rerun


def write_recording(
    path: Union[str, Path],
    samples: Iterable[OccDataSample],
    *,
    mask: Optional[str] = None,
    image_width: int = 800,
) -> int:
    """Writes frames as a recording of rerun, a file complete or absent.

    Timelines: ``frame`` (number) and ``time`` (seconds since the first).
    Under ``world``, which is the frame of the labels: ``ground_truth`` and
    ``prediction`` (surface voxels as boxes, an entity a class), ``errors``,
    ``lidar`` (points), and a pinhole with its image and pose for each camera.

    Args:
        path: File, ``.rrd``.
        samples: Frames in the order of time, see ``sample_of_frame``.
        mask: Voxels that are judged, see ``LabelSpace.mask``.
        image_width: Images are stored at this width.

    Returns:
        The number of frames.

    Raises:
        ImportError: If rerun is missing.
        ValueError: If the suffix is another.
    """
    rerun = import_rerun()
    if Path(path).suffix != '.rrd':
        raise ValueError(f'path takes the suffix .rrd, got {path}')
    count, start = 0, None
    with renamed_when_done(path) as temporary:
        recording = rerun.RecordingStream('radocc_plugin')
        recording.save(str(temporary))
        recording.log('world', rerun.ViewCoordinates.FLU, static=True)
        for count, sample in enumerate(samples, 1):
            start = sample.timestamp if start is None else start
            recording.set_time('frame', sequence=count - 1)
            recording.set_time('time', duration=sample.timestamp - start)
            _log_volumes(rerun, recording, sample, mask)
            _log_lidar(rerun, recording, sample)
            _log_cameras(rerun, recording, sample, image_width)
        recording.flush()
        recording.disconnect()
    return count


def _log_volumes(rerun, recording, sample: OccDataSample, mask: Optional[str]) -> None:
    """Boxes, one entity a class, so that each can be switched off."""
    volumes = {
        name: sample.get(field).semantics.cpu().numpy()
        for name, field in _VOLUMES.items()
        if field in sample
    }
    space = label_space_of(sample, 'write_recording')
    mask = space.mask(mask, 'write_recording')
    tables = dict.fromkeys(volumes, list(zip(space.classes[:-1], space.palette)))
    if len(volumes) == 2:
        judged = None
        if mask != 'none':
            judged = sample.gt_occ.get(f'mask_{mask}').cpu().numpy()
        volumes['errors'] = error_kinds(*volumes.values(), judged, free=space.free)
        tables['errors'] = list(zip(KINDS, KIND_COLORS.astype(int).tolist()))
    for name, labels in volumes.items():
        cells = surface(labels < len(tables[name]))
        centres = np.add(space.point_cloud_range[:3], (cells + 0.5) * space.voxel_size)
        of_cell = labels[tuple(cells.T)]
        for label, (text, color) in enumerate(tables[name]):
            # without a voxel, too: it clears those of the frame before
            mine = centres[of_cell == label]
            recording.log(
                f'world/{name}/{text.replace(" ", "_")}',
                rerun.Boxes3D(
                    centers=mine,
                    half_sizes=np.full_like(mine, space.voxel_size / 2),
                    colors=np.tile(np.uint8(color), (len(mine), 1)),
                    fill_mode='solid',
                ),
            )


def surface(filled: np.ndarray) -> np.ndarray:
    """Filled voxels with a free one, or the border, at a face, (V, 3)."""
    filled = np.pad(filled, 1)
    hidden = filled.copy()
    for axis in range(3):
        for step in (1, -1):
            hidden &= np.roll(filled, step, axis)
    return np.argwhere((filled & ~hidden)[1:-1, 1:-1, 1:-1])


def _log_lidar(rerun, recording, sample: OccDataSample) -> None:
    if 'lidar_path' not in sample.metainfo:  # cameras only
        return
    points = drop_ego_vehicle(
        read_lidar_file(
            sample.lidar_path, sample.get('lidar_columns', 5), sample.get('backend_args')
        )
    )
    lidar2ego = np.asarray(sample.lidar2ego)
    in_ego = points[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
    recording.log('world/lidar', rerun.Points3D(in_ego, radii=0.04))


def _log_cameras(rerun, recording, sample: OccDataSample, image_width: int) -> None:
    for name, path, cam2img, cam2ego in zip(
        sample.cam_names, sample.img_path, sample.cam2img, sample.cam2ego
    ):
        image = read_image(path, sample.get('backend_args'))
        scale = image_width / image.width
        size = image_width, round(image.height * scale)
        entity = f'world/{name}'
        recording.log(entity, rerun.Transform3D(translation=cam2ego[:3, 3], mat3x3=cam2ego[:3, :3]))
        intrinsics = np.diag((scale, scale, 1.0)) @ cam2img
        recording.log(
            entity,
            rerun.Pinhole(
                image_from_camera=intrinsics,
                resolution=size,
                camera_xyz=rerun.ViewCoordinates.RDF,
                image_plane_distance=2.0,
            ),
        )
        small = np.asarray(image.resize(size))
        recording.log(entity, rerun.Image(small).compress(85))
