"""Checkpoints: complete or absent, and a damaged one is never resumed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend, register_backend

from radocc_plugin import fileio
from radocc_plugin.engine import (
    SafeCheckpointHook,
    check_checkpoint,
    intact_checkpoint,
    latest_checkpoint,
)
from radocc_plugin.engine import checkpoint_hook
from radocc_plugin.engine.checkpoint_hook import CHECKSUM
from tests.test_distillation.toy_distillation import assert_same_weights
from tests.test_engine.saving_worker import train

ROOT = Path(__file__).resolve().parents[2]


def names(folder):
    """What lies in a work folder but logs and configs, hidden files too."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py')


def saved(*epochs):
    return sorted(
        ['last_checkpoint'] + [f'epoch_{e}.pth{end}' for e in epochs for end in ('', CHECKSUM)]
    )


def flip(path):
    """Changes one bit of the weights."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Weights of a training that was never stopped."""
    folder = tmp_path_factory.mktemp('whole')
    return train(folder, 4).model.state_dict()


@pytest.fixture(scope='module')
def three_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('three') / 'run'
    train(folder, 3)
    return folder


@pytest.fixture
def run(tmp_path, three_epochs):
    """The folder of a training of three epochs, which keeps two."""
    folder = shutil.copytree(three_epochs, tmp_path / 'run')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
    return folder


def test_the_last_are_kept_each_with_its_checksum(run):
    assert names(run) == saved(2, 3)
    for epoch in (2, 3):
        path = run / f'epoch_{epoch}.pth'
        digest, name = Path(f'{path}{CHECKSUM}').read_text().split()
        assert (digest, name) == (fileio.sha256(path), path.name)
        check_checkpoint(str(path))


@pytest.mark.parametrize('where', ['saving', 'renaming', 'renamed'])
def test_a_kill_loses_at_most_one_interval(tmp_path, whole, where):
    folder = tmp_path / 'run'
    process = subprocess.run(
        [sys.executable, '-m', 'tests.test_engine.saving_worker', str(folder), '4', where, '2'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
    )
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    assert intact_checkpoint(folder) == str(folder / 'epoch_1.pth')
    assert any(n.endswith('.tmp') for n in names(folder)) == (where != 'renamed')
    resumed = train(folder, 4)
    assert names(folder) == saved(3, 4)
    assert_same_weights(resumed.model.state_dict(), whole)


@pytest.mark.parametrize(
    'damage',
    [
        flip,
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, 0),
        Path.unlink,
    ],
)
@pytest.mark.parametrize('checksum', [True, False])
def test_a_damaged_one_is_named_and_the_one_before_taken(run, whole, damage, checksum):
    """With and without our checksum; MMEngine's hook writes none."""
    if not checksum:
        (run / f'epoch_3.pth{CHECKSUM}').unlink()
    damage(run / 'epoch_3.pth')
    with pytest.warns(UserWarning, match='epoch_3.pth is (damaged|missing)'):
        assert intact_checkpoint(run) == str(run / 'epoch_2.pth')
    if damage is flip and checksum:
        assert_same_weights(train(run, 4).model.state_dict(), whole)
        assert names(run) == saved(3, 4)


def test_all_damaged_is_an_error_that_names_all(run):
    for epoch in (2, 3):
        flip(run / f'epoch_{epoch}.pth')
    with (
        pytest.warns(UserWarning, match='damaged'),
        pytest.raises(ValueError, match='epoch_3.pth.*epoch_2.pth'),
    ):
        intact_checkpoint(run)


def test_later_files_of_another_run_are_not_taken(run):
    (run / 'epoch_9.pth').write_bytes((run / 'epoch_2.pth').read_bytes())
    assert latest_checkpoint(run) == str(run / 'epoch_3.pth')
    flip(run / 'epoch_3.pth')
    with pytest.warns(UserWarning, match='damaged'):
        assert intact_checkpoint(run) == str(run / 'epoch_2.pth')


def test_an_empty_pointer_is_named(run):
    (run / 'last_checkpoint').write_text('')
    with pytest.raises(ValueError, match='last_checkpoint is empty'):
        intact_checkpoint(run)


def test_a_full_disk_is_an_error_and_the_old_ones_stay(run, whole, monkeypatch):
    before = {path: (run / path).read_bytes() for path in names(run)}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fileio.os, 'fsync', full)
        with pytest.raises(OSError, match='epoch_4.pth was not written.*No space left.*--resume'):
            train(run, 4)
    assert {path: (run / path).read_bytes() for path in names(run)} == before
    assert_same_weights(train(run, 4).model.state_dict(), whole)


def test_one_kept_is_there_until_the_next_is(tmp_path, monkeypatch):
    """MMEngine removes it first."""
    train(tmp_path / 'run', 1, max_keep_ckpts=1)
    monkeypatch.setattr(fileio.os, 'replace', lambda *_: 1 / 0)
    with pytest.raises(OSError, match='ZeroDivisionError'):
        train(tmp_path / 'run', 2, max_keep_ckpts=1)
    check_checkpoint(str(tmp_path / 'run' / 'epoch_1.pth'))


class BucketBackend(BaseStorageBackend):
    """An object store; its objects lie in a folder."""

    root = None

    def __getattr__(self, name):
        """Methods of a local backend whose last path is an address."""
        member = getattr(LocalBackend(), name)

        def call(*arguments, **kwargs):
            *data, address = arguments
            assert address.startswith('bucket://'), address
            path = self.root / address[len('bucket://') :]
            return member(*data, path, **kwargs)

        return call

    def get(self, filepath):
        return self.__getattr__('get')(filepath)

    def get_text(self, filepath):
        return self.__getattr__('get_text')(filepath)

    def join_path(self, path, *paths):
        return '/'.join([path, *paths])


def test_an_object_store_keeps_checksums_too(tmp_path, monkeypatch):
    monkeypatch.setattr(BucketBackend, 'root', tmp_path / 'store')
    for register in (register_backend, FileClient.register_backend):
        register('bucket', BucketBackend, force=True, prefixes='bucket')
    run = tmp_path / 'run'
    train(run, 3, out_dir='bucket://here')
    there = tmp_path / 'store' / 'here' / 'run'
    assert names(run) == ['last_checkpoint']
    assert names(there) == saved(2, 3)[:-1]
    flip(there / 'epoch_3.pth')
    with pytest.warns(UserWarning, match='damaged'):
        assert intact_checkpoint(run) == 'bucket://here/run/epoch_2.pth'


def test_the_best_has_a_checksum(tmp_path):
    """It is saved by MMEngine's part of the hook, by the same backend."""
    folder = tmp_path / 'run'
    runner = train(folder, 1, save_best='score', rule='greater')
    hook = next(h for h in runner.hooks if isinstance(h, SafeCheckpointHook))
    hook.after_val_epoch(runner, dict(score=1.0))
    assert names(folder) == sorted(
        saved(1) + ['best_score_epoch_1.pth', f'best_score_epoch_1.pth{CHECKSUM}']
    )
    check_checkpoint(hook.best_ckpt_path)
    check_checkpoint(str(folder / 'epoch_1.pth'))
    # the checkpoint to resume from knows the best one
    info = torch.load(folder / 'epoch_1.pth', weights_only=False)['message_hub']
    assert info['runtime_info']['best_ckpt'] == hook.best_ckpt_path


@pytest.fixture(params=[['score'], ['score', 'other']], ids=len)
def best_of_one_epoch(request, tmp_path):
    """A function that evaluates as a later epoch, after the first was best."""
    runner = train(tmp_path / 'run', 1, save_best=request.param, rule='greater')
    hook = next(h for h in runner.hooks if isinstance(h, SafeCheckpointHook))

    def evaluate(epoch, score):
        runner.train_loop._epoch = epoch
        hook.after_val_epoch(runner, {key: score for key in request.param})

    evaluate(1, 1.0)
    return tmp_path / 'run', request.param, evaluate


def test_the_best_of_before_stays_where_the_next_is_not_written(best_of_one_epoch, monkeypatch):
    folder, _, evaluate = best_of_one_epoch
    before = names(folder)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fileio.os, 'fsync', full)
    with pytest.raises(OSError, match='best_score_epoch_2.pth was not written.*No space left'):
        evaluate(2, 2.0)
    assert names(folder) == before
    check_checkpoint(str(folder / 'best_score_epoch_1.pth'))


def test_the_best_of_before_goes_with_its_checksum(best_of_one_epoch):
    folder, keys, evaluate = best_of_one_epoch
    for epoch, score in ((2, 0.5), (3, 3.0), (4, 3.0)):  # the last is no better
        evaluate(epoch, score)
    best = [name for name in names(folder) if name.startswith('best')]
    assert best == sorted(f'best_{k}_epoch_3.pth{end}' for k in keys for end in ('', CHECKSUM))


def test_processes_that_write_nothing_raise_too(monkeypatch):
    hook = SafeCheckpointHook()
    hook._raise_everywhere(None)
    monkeypatch.setattr(
        checkpoint_hook,
        'broadcast_object_list',
        lambda failures: failures.__setitem__(0, 'disk full'),
    )
    with pytest.raises(OSError, match='was not written: disk full'):
        hook._raise_everywhere(None)


def test_deprecated_arguments_are_named():
    with pytest.raises(ValueError, match='file_client_args'):
        SafeCheckpointHook(file_client_args=dict(backend='disk'))
