"""Files of strangers: pickles and checkpoints give data and run no code."""

import io
import os
import pickle
import types
import zipfile
from typing import Optional

import torch
from mmengine.fileio import get as get_bytes
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import _ParamScheduler

# What pickles of containers and numpy values refer to; old and new numpy.
_DATA = {
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
    ('_codecs', 'encode'),
    ('collections', 'OrderedDict'),
}
for _core in ('numpy.core', 'numpy._core'):
    _DATA |= {
        (f'{_core}.multiarray', '_reconstruct'),
        (f'{_core}.multiarray', 'scalar'),
        (f'{_core}.numeric', '_frombuffer'),
    }

# What checkpoints have besides: tensors, the logs of MMEngine.
_CHECKPOINT = _DATA | {
    ('torch._utils', '_rebuild_tensor'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('torch._utils', '_rebuild_parameter'),
    ('torch._utils', '_rebuild_parameter_with_state'),
    ('torch', 'Size'),
    ('torch', 'device'),
    ('torch.nn.parameter', 'Parameter'),
    ('torch.serialization', '_get_layout'),
    ('collections', 'defaultdict'),
    ('collections', 'deque'),
    ('mmengine.logging.history_buffer', 'HistoryBuffer'),
}
for _module in ('builtins', '__builtin__'):
    _CHECKPOINT |= {
        (_module, name)
        for name in ('set', 'frozenset', 'complex', 'bytearray', 'slice', 'range', 'int', 'float')
        + ('bool', 'str', 'bytes', 'list', 'dict', 'tuple')
    }
TRUST = 'RADOCC_TRUST_CHECKPOINTS'


class DataUnpickler(pickle.Unpickler):
    """Unpickles containers and numpy values; runs no code of the file.

    Raises:
        pickle.UnpicklingError: If the file holds anything else; names it.
    """

    def find_class(self, module: str, name: str):
        if (module, name) not in _DATA:
            raise pickle.UnpicklingError(
                f'it holds {module}.{name}; info files take plain containers and numpy values only'
            )
        return super().find_class(module, name)


class CheckpointUnpickler(pickle.Unpickler):
    """Unpickles what :class:`DataUnpickler` does, tensors, and the logs and
    schedules that MMEngine writes."""

    def find_class(self, module: str, name: str):
        if (module, name) in (('builtins', 'getattr'), ('__builtin__', 'getattr')):
            return _attribute
        if module.startswith('mmengine.optim.scheduler.'):
            found = super().find_class(module, name)
            if isinstance(found, type) and issubclass(found, _ParamScheduler):
                return found
        if module == 'numpy.dtypes' and name.endswith('DType'):
            return super().find_class(module, name)
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ('torch', 'torch.storage') and name.endswith('Storage'):
            return super().find_class(module, name)
        if (module, name) not in _CHECKPOINT:
            raise pickle.UnpicklingError(
                f'it holds {module}.{name}, which could run code. If you trust whoever made '
                f'the file: {TRUST}=1, or --trust-checkpoints of train and test'
            )
        return super().find_class(module, name)


def _attribute(owner: type, name: str):
    """What pickles of MMEngine look up: statistics of a log, the function
    that a schedule anneals by."""
    known = owner is HistoryBuffer or isinstance(owner, type) and issubclass(owner, _ParamScheduler)
    if not known or name.startswith('__'):
        raise pickle.UnpicklingError(f'it looks up {name!r} of {owner!r}')
    return getattr(owner, name)


def _load(file, **kwargs):
    return CheckpointUnpickler(file, **kwargs).load()


# What torch.load takes in place of the module pickle.
_pickle = types.ModuleType('checkpoint_pickle')
_pickle.Unpickler, _pickle.load = CheckpointUnpickler, _load


def load_checkpoint_file(filename: str, map_location=None, logger: Optional[str] = None) -> dict:
    """Reads a checkpoint of any torch or MMEngine; runs no code of the file.

    In the place of MMEngine's reader, which unpickles with full power, and of
    torch's ``weights_only``, which cannot read the logs in MMEngine's
    checkpoints (open-mmlab/mmengine#1655). With the environment variable
    ``RADOCC_TRUST_CHECKPOINTS=1`` the file may run code, and the log says so.

    Args:
        filename: A path, or an address that MMEngine's file backends read.
        map_location: As in ``torch.load``.
        logger: Ignored; MMEngine's readers have it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or holds anything but data.
    """
    filename = os.path.expanduser(filename)
    if '://' in filename:
        source = io.BytesIO(get_bytes(filename))
    elif os.path.isfile(filename):
        source = filename
    else:
        raise FileNotFoundError(f'{filename} can not be found.')
    if os.environ.get(TRUST) == '1':
        print_log(f'{filename} is loaded with the power to run code ({TRUST}=1)', 'current', 30)
        return torch.load(source, map_location=map_location, weights_only=False)
    try:
        _refuse_programs(source)
        checkpoint = torch.load(
            source, map_location=map_location, pickle_module=_pickle, weights_only=False
        )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(f'cannot read checkpoint {filename}: {error}') from error
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        # of mmcv 1; MMEngine runs it as Python when it resumes
        checkpoint['meta'].pop('config', None)
    return checkpoint


def _refuse_programs(source) -> None:
    """Raises if a file is a TorchScript program, which torch would run."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise ValueError('it is a TorchScript program, not a checkpoint')
    if hasattr(source, 'seek'):
        source.seek(0)
