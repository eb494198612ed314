"""Checkpoints that are complete or absent, and the newest that is intact."""

import hashlib
import os.path as osp
import re
import warnings
import zipfile
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional, Union

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import BaseStorageBackend, LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook

from radocc_plugin.engine.process_state import gather_states, restore_state
from radocc_plugin.fileio import sha256, write_atomically
from radocc_plugin.registry import HOOKS

# Beside every checkpoint, as ``sha256sum --check`` reads it.
CHECKSUM = '.sha256'


class CheckedBackend(BaseStorageBackend):
    """A file backend whose files have a checksum beside them.

    Files of a local disk are written beside their place and renamed; a put of
    an object store is whole or absent by itself.

    Args:
        folder: Decides the backend that reads and writes, see MMEngine.
        backend_args: Of that backend.
    """

    def __init__(self, folder: str, backend_args: Optional[dict] = None) -> None:
        self.backend = get_file_backend(folder, backend_args=backend_args)
        self._outdated: Optional[List[str]] = None

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def get(self, filepath) -> bytes:
        return self.backend.get(filepath)

    def get_text(self, filepath) -> str:
        return self.backend.get_text(filepath)

    def put(self, obj: bytes, filepath: str) -> None:
        # A kill in between leaves a file without a checksum, which is no
        # fault; the checksum of the file before would be one.
        self._remove_checksum(filepath)
        if isinstance(self.backend, LocalBackend):
            write_atomically(filepath, obj, durable=True)
        else:
            self.backend.put(obj, filepath)
        digest = hashlib.sha256(obj).hexdigest()
        line = f'{digest}  {osp.basename(filepath)}\n'
        if isinstance(self.backend, LocalBackend):
            write_atomically(filepath + CHECKSUM, line)
        else:
            self.backend.put_text(line, filepath + CHECKSUM)

    def remove(self, filepath: str) -> None:
        if self._outdated is not None:
            self._outdated.append(filepath)
            return
        self._remove_checksum(filepath)
        self.backend.remove(filepath)

    @contextmanager
    def removing_last(self) -> Iterator[List[str]]:
        """Removes what is to go only when all else of the context is done,
        and nothing if that fails. Yields the paths."""
        outdated: List[str] = []
        self._outdated = outdated
        try:
            yield outdated
        finally:
            self._outdated = None
        for path in outdated:
            self.remove(path)

    def remove_unfinished(self, folder: str) -> None:
        """Removes what killed processes have left of their writing."""
        if isinstance(self.backend, LocalBackend):
            for suffix in ('.pth', CHECKSUM):
                for path in Path(folder).glob(f'.*{suffix}.*.tmp'):
                    path.unlink()

    def _remove_checksum(self, filepath: str) -> None:
        if self.backend.isfile(filepath + CHECKSUM):
            self.backend.remove(filepath + CHECKSUM)


register_backend('radocc_plugin.checked', CheckedBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's hook, whose checkpoints survive kills and full disks.

    - A file is written beside its place and renamed: under its name it is
      complete or absent. Its SHA-256 stands beside it (``FILE.sha256``).
    - The oldest goes only when the newest is written, so that
      ``max_keep_ckpts`` intact ones are there at any time; so does the best
      of before (``save_best``).
    - If writing fails, all processes raise the same error; what was written
      before stays.
    - Gradients that wait for the rest of their step are part of it, and
      streams on demand.

    Args:
        save_streams: Whether a checkpoint takes along what models carry from
            frame to frame, of all processes (FB-OCC: volumes of 16 past
            frames a sample). Without, streams take their first frame after a
            resume as a start.
        **kwargs: Arguments of MMEngine's ``CheckpointHook``, other than the
            deprecated ``file_client_args``.

    Raises:
        ValueError: If ``file_client_args`` is given.
    """

    def __init__(self, save_streams: bool = False, **kwargs) -> None:
        if kwargs.get('file_client_args') is not None:
            raise ValueError(
                'SafeCheckpointHook takes backend_args, got file_client_args='
                f'{kwargs["file_client_args"]}'
            )
        super().__init__(**kwargs)
        self.save_streams = save_streams
        self._states: Optional[List[dict]] = None  # of the processes

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._states = checkpoint.get('processes') if runner._resume else None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._states:
            checkpoint['processes'] = self._states

    def before_train(self, runner) -> None:
        restore_state(runner, self._states)
        self._states = None
        self.backend_args = dict(
            backend='radocc_plugin.checked',
            folder=str(self.out_dir or runner.work_dir),
            backend_args=self.backend_args,
        )
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            # without a limit: one more, until the newest is written
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)
        if is_main_process():
            self.file_backend.remove_unfinished(self.out_dir)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        outdated = []
        if self.max_keep_ckpts > 0:
            if step not in self.keep_ckpt_ids:
                self.keep_ckpt_ids.append(step)
            while len(self.keep_ckpt_ids) > self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._states = gather_states(runner, self.save_streams)
        failure = None
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_atomically(
                    Path(runner.work_dir) / 'last_checkpoint', self.last_ckpt, durable=True
                )
        except Exception as error:  # of any backend
            failure = error
        self._states = None
        self._raise_everywhere(failure)
        if is_main_process():
            for old in outdated:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if not self.save_best:
            return
        save = runner.save_checkpoint

        def save_or_raise_everywhere(*args, **kwargs) -> None:
            failure = None
            try:
                save(*args, **kwargs)
            except Exception as error:  # of any backend
                failure = error
            self._raise_everywhere(failure, kwargs.get('filename', self.last_ckpt))

        runner.save_checkpoint = save_or_raise_everywhere
        try:
            # MMEngine removes the best of before first.
            with self.file_backend.removing_last() as outdated:
                super()._save_best_checkpoint(runner, metrics)
                best = [
                    getattr(self, 'best_ckpt_path', None),
                    *getattr(self, 'best_ckpt_path_dict', {}).values(),
                ]
                outdated[:] = [path for path in outdated if path not in best]
        finally:
            runner.save_checkpoint = save

    def _raise_everywhere(self, failure: Optional[Exception], name: Optional[str] = None) -> None:
        """Raises what the main process met; others would wait for it."""
        failures = [repr(failure) if failure else None]
        broadcast_object_list(failures)
        if failures[0]:
            raise OSError(
                f'checkpoint {name or self.last_ckpt} was not written: {failures[0]}. '
                'Those before are as they were; make room, then go on with '
                '--resume'
            ) from failure


def latest_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The checkpoint that ``last_checkpoint`` of a work folder names.

    The file tells its path of then; if the folder was moved since, it is the
    file of that name in the folder. None if no checkpoint was written.

    Raises:
        ValueError: If ``last_checkpoint`` is empty, which MMEngine's own hook
            leaves if it is killed.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    written = pointer.read_text().strip()
    if not written:
        raise ValueError(f'{pointer} is empty; name the checkpoint to go on from: --resume FILE')
    own = Path(work_dir) / osp.basename(written)
    return str(own) if own.exists() else written


def check_checkpoint(path: str) -> None:
    """Raises unless a checkpoint file is as it was written.

    A file without a checksum beside it (of another hook, or downloaded) is
    checked by those that ``torch.save`` puts into it.

    Args:
        path: Local, or of a backend of MMEngine.

    Raises:
        ValueError: If the file is missing or damaged; names it.
    """
    backend = get_file_backend(path)
    if not hasattr(backend, 'isfile') or backend.isdir(path):
        return  # of the web, or a folder of DeepSpeed: not ours
    if not backend.isfile(path):
        raise ValueError(f'checkpoint {path} is missing')
    with backend.get_local_path(path) as local:
        if backend.isfile(path + CHECKSUM):
            expected = backend.get_text(path + CHECKSUM).split(' ')[0]
            if sha256(local) != expected:
                raise ValueError(
                    f'checkpoint {path} is damaged: its SHA-256 is not that of {path}{CHECKSUM}'
                )
            return
        try:
            with zipfile.ZipFile(local) as archive:
                part = archive.testzip()
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            part = str(error)
    if part is not None:
        raise ValueError(f'checkpoint {path} is damaged: {part}')


def intact_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The latest checkpoint of a work folder that is as it was written.

    A damaged one is named in a warning and the one before is taken: of the
    same name, with the next lower number.

    Returns:
        Path, or None if no checkpoint was written.

    Raises:
        ValueError: If all are damaged.
    """
    latest = latest_checkpoint(work_dir)
    if latest is None:
        return None
    damage = []
    for path in [latest, *_before(latest)]:
        try:
            check_checkpoint(path)
        except ValueError as error:
            damage.append(str(error))
            warnings.warn(f'{error}; the one before is taken')
        else:
            return path
    raise ValueError(f'no checkpoint of {work_dir} is intact: {"; ".join(damage)}')


def _before(path: str) -> List[str]:
    """Files of the same name with lower numbers, the highest first."""
    folder, name = osp.split(path)
    start, number, end = re.fullmatch(r'(.*?)(\d*)(\D*)', name).groups()
    if not number:
        return []
    backend = get_file_backend(path)
    found = {}
    for other in backend.list_dir_or_file(folder, list_dir=False):
        match = re.fullmatch(re.escape(start) + r'(\d+)' + re.escape(end), other)
        if match and int(match[1]) < int(number):
            found[int(match[1])] = backend.join_path(folder, other)
    return [found[number] for number in sorted(found, reverse=True)]
