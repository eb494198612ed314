"""Info files: one pickle a split, mmdet3d's v2 layout plus occupancy.

The fields of a sample are described in ``nuscenes_infos``.
"""

import io
import os.path as osp
import pickle
from typing import Optional

from radocc_plugin.datasets.old_infos import complete_v2_infos, from_old_infos
from radocc_plugin.fileio import expand_path, read_bytes, write_atomically
from radocc_plugin.untrusted import DataUnpickler

INFO_VERSION = 'radocc-1.0'


def load_infos(
    path: str, backend_args: Optional[dict] = None, data_root: Optional[str] = None
) -> dict:
    """Reads an info file safely.

    Args:
        path: Pickle written by :func:`save_infos` or by mmdet3d, or an old one
            of BEVDet, FB-OCC or BEVFormer's occupancy baseline, which is
            converted (see ``old_infos``).
        backend_args: Where it lies, see ``fileio.read_bytes``.
        data_root: Where, besides the folder of the file, the tables of
            nuScenes may be that a file of mmdet3d needs.

    Returns:
        ``dict(metainfo=dict, data_list=list of dict)``.

    Raises:
        ValueError: If the file is missing, is no such pickle, is of another
            version of ours, or holds anything but plain containers and numpy
            values.
    """
    path = expand_path(str(path))
    roots = [osp.dirname(path)] + ([data_root] if data_root else [])
    try:
        infos = DataUnpickler(io.BytesIO(read_bytes(path, backend_args))).load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise ValueError(
            f'cannot read info file {path}: {error}; tools/create_data.py writes it'
        ) from error
    if isinstance(infos, dict) and isinstance(infos.get('infos'), list):
        try:
            return from_old_infos(infos, roots)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            text = str(error) if type(error) is ValueError else repr(error)
            raise ValueError(f'cannot convert the old info file {path}: {text}') from error
    if not isinstance(infos, dict) or not isinstance(infos.get('data_list'), list):
        raise ValueError(
            f'info file {path} takes dict(metainfo=..., data_list=[...]), got '
            f'{sorted(infos) if isinstance(infos, dict) else type(infos)}; '
            'write it again with tools/create_data.py'
        )
    version = infos.get('metainfo', {}).get('info_version', '')
    if str(version).startswith('radocc-') and version != INFO_VERSION:
        raise ValueError(
            f'info file {path} has version {version}, this code reads '
            f'{INFO_VERSION}; write it again with tools/create_data.py'
        )
    try:
        complete_v2_infos(infos, roots)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'cannot complete info file {path} from the tables: {error!r}') from error
    return infos


def save_infos(infos: dict, path: str) -> None:
    """Writes an info file; a reader never sees half of it."""
    write_atomically(path, pickle.dumps(infos, protocol=4))
