"""Logits from disk serve as the teacher's own."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from radocc_plugin.distillation import TeacherCache, to_augmented_frame
from radocc_plugin.distillation.teacher_cache import decode, encode
from radocc_plugin.registry import DATASETS, MODELS
from tests.test_distillation.toy_distillation import (
    CLASSES,
    SHAPE,
    TAP,
    ToyData,
    batch_of,
    distilled,
    train,
)

ROOT = Path(__file__).resolve().parents[2]
RANGE = (-4, -4, -1, 4, 4, 2.2)


@MODELS.register_module(force=True)
class MirroringTeacher(BaseModel):
    """A volume for every token; mirrors with the ego frame."""

    occ_tap = dict(module='head')

    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        volumes = []
        for sample in data_samples:
            generator = torch.Generator().manual_seed(int(sample.metainfo['token'][:4]))
            volume = 5 * torch.randn(*SHAPE, CLASSES, generator=generator)
            bda_mat = sample.metainfo.get('bda_mat', np.eye(4))
            volumes.append(volume.flip([a for a in range(3) if bda_mat[a, a] < 0]))
        return self.head(torch.stack(volumes))


@DATASETS.register_module(force=True)
class ToyDataset(ToyData):
    """ToyData as the tool builds it."""

    def __init__(self, ann_file='', pipeline=(), bda_mat=None, key_ego='lidar', test_mode=False):
        self.ann_file, self.bda_mat = ann_file, bda_mat
        self.key_ego = key_ego

    def get_data_info(self, index):
        return dict(token=f'{index:04d}sample')

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if self.bda_mat is not None:
            item['data_samples'].set_metainfo(dict(bda_mat=np.array(self.bda_mat)))
        return item


def load_tool():
    spec = importlib.util.spec_from_file_location(
        'cache_teacher', ROOT / 'tools' / 'cache_teacher.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Setup:
    """Config files of a teacher and a distilled student, and a cache."""

    def __init__(self, folder, model, checkpoint=None, tap=None):
        self.folder, self.out = folder, folder / 'cache'
        self.teacher_file = folder / 'teacher.py'
        self.teacher_file.write_text(
            f'model = {model!r}\n'
            "test_dataloader = dict(dataset=dict(type='radocc_plugin."
            "ToyDataset', pipeline=[]))\n"
        )
        self.model = distilled(rsc=0.5)
        self.model['student'] = dict(self.model['student'], plain=True)
        self.model['teacher'] = dict(model=str(self.teacher_file), checkpoint=checkpoint, tap=tap)
        self.config = folder / 'distilled.py'
        self.config.write_text(
            f"model = {self.model!r}\ntrain_dataloader = dict(dataset=dict(ann_file='train.pkl'))\n"
        )

    def write(self, *options):
        load_tool().main(
            [
                str(self.config),
                '--out',
                str(self.out),
                '--workers',
                '0',
                '--device',
                'cpu',
                *options,
            ]
        )
        return self

    def build(self, cache):
        """A distiller with the live or the cached teacher."""
        torch.manual_seed(0)
        config = dict(self.model)
        config['teacher'] = dict(config['teacher'], cache=cache)
        return MODELS.build(config).eval()

    def losses(self, cache=None, bda_mat=None):
        inputs, samples = batch_of((3, 5))
        for sample in samples:
            if bda_mat is not None:
                sample.set_metainfo(dict(bda_mat=np.array(bda_mat)))
        losses = self.build(cache)(inputs, samples, mode='loss')
        return {name: float(value) for name, value in losses.items()}


@pytest.fixture
def mirroring(tmp_path):
    return Setup(tmp_path, dict(type='radocc_plugin.MirroringTeacher'))


@pytest.fixture
def network(tmp_path, teacher):
    return Setup(tmp_path, dict(type='radocc_plugin.ToyOccStudent', width=16), teacher, TAP)


@pytest.mark.parametrize('signs', [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_cached_losses_equal_live_ones_under_flips(mirroring, signs):
    mirroring.write()
    bda_mat = np.diag([*signs, 1.0, 1.0])
    live = mirroring.losses(bda_mat=bda_mat)
    cached = mirroring.losses(str(mirroring.out), bda_mat)
    assert cached == pytest.approx(live, rel=2e-3)
    assert live['loss_rdc'] > 0.1
    if signs != (1, 1):
        assert live['loss_rdc'] != pytest.approx(mirroring.losses()['loss_rdc'], rel=1e-2)


def test_cached_losses_equal_live_ones_of_a_network(network):
    live = network.write().losses()
    cached = network.losses(str(network.out))
    assert cached == pytest.approx(live, rel=2e-3)
    assert live['loss_rdc'] > 1e-3
    # In volumes that float16 holds exactly, nothing differs at all.
    cache = TeacherCache(network.out)
    model = network.build(str(network.out))
    samples = batch_of((3, 5))[1]
    volumes = model.teacher.outputs({}, samples, 'cpu').occ_logits
    for sample, volume in zip(samples, volumes):
        assert torch.equal(volume, cache.read(sample.metainfo['token']))
        assert torch.equal(volume, volume.half().float())


def test_training_from_the_cache_builds_no_teacher(network, tmp_path):
    network.write()
    config = dict(network.model)
    config['teacher'] = dict(config['teacher'], cache=str(network.out))
    config['teacher']['model'] = str(network.teacher_file)
    model = train(tmp_path / 'work', config, epochs=1)
    assert not hasattr(model.teacher, '_model')
    plain = train(tmp_path / 'plain', config['student'], epochs=1)
    different = [
        not torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items()
    ]
    assert any(different)


def test_top_k_keeps_free_and_the_likely_classes():
    logits = 4 * torch.randn(6, 5, 4, 18, generator=torch.Generator().manual_seed(0))
    for free_index in (-1, 17, 3):
        back = decode(encode(logits, 3, free_index))
        assert torch.equal(back[..., free_index], logits.half().float()[..., free_index])
        assert (back.argmax(-1) == logits.argmax(-1)).float().mean() > 0.99
        kept = logits.clone()
        kept[..., free_index] = -torch.inf
        kept = kept.topk(3, -1).indices
        torch.testing.assert_close(
            back.softmax(-1).gather(-1, kept),
            logits.softmax(-1).gather(-1, kept),
            atol=2e-3,
            rtol=2e-2,
        )
    torch.testing.assert_close(decode(encode(logits)), logits, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize('top_k', [0, 17, 20])
def test_top_k_out_of_range_is_named(top_k):
    with pytest.raises(ValueError, match='top_k takes 1 to 16'):
        encode(torch.zeros(2, 2, 2, 18), top_k)


@pytest.mark.parametrize('value', [float('nan'), 1e6])
def test_logits_that_float16_cannot_hold_are_named(value):
    with pytest.raises(ValueError, match='not finite in float16'):
        encode(torch.full((2, 2, 2, 18), value))


def test_top_k_losses_are_close(mirroring):
    live = mirroring.losses()
    mirroring.write('--top-k', '2')
    # Three classes besides free: one logit stands for one class, exactly.
    assert mirroring.losses(str(mirroring.out)) == pytest.approx(live, rel=2e-3)


def test_shards_and_interruptions_fill_one_cache(network):
    network.write('--shard', '1/3')
    tokens = sorted(p.stem for p in network.out.rglob('*.npz'))
    assert tokens == [f'{i:04d}sample' for i in (1, 4, 7, 10)]
    before = {p: p.stat().st_mtime_ns for p in network.out.rglob('*.npz')}
    network.write()
    files = list(network.out.rglob('*.npz'))
    assert len(files) == len(ToyData())
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize('shard', ['3/3', '1', 'a/b', '-1/2'])
def test_wrong_shards_are_named(network, shard):
    with pytest.raises(ValueError, match='--shard takes I/N'):
        network.write(f'--shard={shard}')


def test_a_cache_of_another_teacher_is_refused(network, teacher):
    network.write()
    state = torch.load(teacher)
    state['state_dict']['head.bias'] += 1
    torch.save(state, teacher)
    with pytest.raises(ValueError, match='another checkpoint'):
        network.losses(str(network.out))
    with pytest.raises(ValueError, match='another setting'):
        network.write()


def test_a_cache_of_another_config_is_refused(network):
    network.write()
    text = network.teacher_file.read_text()
    network.teacher_file.write_text(text.replace('pipeline=[]', "pipeline=['other']"))
    with pytest.raises(ValueError, match='another teacher'):
        network.losses(str(network.out))


def test_an_absent_checkpoint_is_no_error(network, teacher):
    network.write()
    expected = network.losses(str(network.out))
    Path(teacher).unlink()
    assert network.losses(str(network.out)) == expected


def test_a_cache_alone_is_a_teacher(network):
    network.write()
    expected = network.losses(str(network.out))
    network.model['teacher'] = {}
    assert network.losses(str(network.out)) == expected


def test_missing_foreign_and_broken_volumes_are_named(network):
    network.write()
    cache = TeacherCache(network.out)
    with pytest.raises(ValueError, match='no teacher logits of sample 9999'):
        cache.read('9999sample')
    file = cache.file('0003sample')
    file.write_bytes(cache.file('0004sample').read_bytes())
    with pytest.raises(ValueError, match='0003sample.*0004sample'):
        network.losses(str(network.out))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match='0003sample.npz'):
        network.losses(str(network.out))


def test_a_missing_cache_is_named(network):
    with pytest.raises(ValueError, match='manifest.json.*cache_teacher'):
        network.losses(str(network.out))


def test_a_cache_of_another_format_is_named(network):
    network.write()
    path = network.out / 'manifest.json'
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(dict(manifest, format=99)))
    with pytest.raises(ValueError, match='format 3, got 99'):
        network.losses(str(network.out))


def test_a_pipeline_that_augments_is_refused(network):
    text = network.teacher_file.read_text()
    network.teacher_file.write_text(
        text.replace('pipeline=[]', f'bda_mat={np.diag([-1.0, 1, 1, 1]).tolist()}, pipeline=[]')
    )
    with pytest.raises(ValueError, match='augments the ego frame'):
        network.write()


def test_features_are_not_cached(network):
    config = dict(network.model, teacher_features=dict(hidden=dict(module='encode', layout='b c')))
    config['teacher'] = dict(config['teacher'], cache='somewhere')
    with pytest.raises(ValueError, match=r"no features.*\['hidden'\]"):
        MODELS.build(config)


def volume(seed=0):
    return torch.randn(*SHAPE, CLASSES, generator=torch.Generator().manual_seed(seed))


def turned(degrees, scale=1.0):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= scale
    return matrix


@pytest.mark.parametrize('bda_mat', [turned(5), turned(0, 1.05)])
def test_rotation_and_scale_are_an_error_unless_resampled(bda_mat):
    with pytest.raises(ValueError, match='resample.*nearest.*trilinear'):
        to_augmented_frame(volume(), bda_mat, RANGE)
    moved = to_augmented_frame(volume(), bda_mat, RANGE, 'nearest')
    assert moved.shape == volume().shape


def test_mirroring_of_a_grid_that_is_not_symmetric_is_an_error():
    with pytest.raises(ValueError, match='middle of the grid'):
        to_augmented_frame(volume(), np.diag([-1.0, 1, 1, 1]), (0, -4, -1, 8, 4, 2.2))


@pytest.mark.parametrize('resample', ['nearest', 'trilinear'])
def test_resampling_by_a_quarter_turn_is_exact(resample):
    # x -> y, y -> -x: the cell at (x, y) comes from (y, -x).
    expected = volume().rot90(1, (0, 1))
    moved = to_augmented_frame(volume(), turned(90), RANGE, resample)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)
    mirrored = to_augmented_frame(volume(), np.diag([-1.0, 1, 1, 1]), RANGE, resample)
    assert torch.equal(mirrored, volume().flip(0))


def test_resampled_cells_from_outside_are_free():
    moved = to_augmented_frame(volume(), turned(0, 0.5), RANGE, 'trilinear')
    corner = moved[0, 0, 0]
    assert corner.argmax() == CLASSES - 1 and corner[:-1].abs().sum() == 0
    # The centre (0.4, 0.4, 1.0) m of twice the size was at half of it.
    grown = to_augmented_frame(volume(), turned(0, 2.0), RANGE, 'nearest')
    assert torch.equal(grown[5, 5, 2], volume()[5, 5, 1])


def test_unknown_resampling_is_named(network):
    with pytest.raises(ValueError, match='resample.*nearest.*bilinear'):
        network.build(dict(root='somewhere', resample='bilinear'))


def test_a_cache_of_another_ego_frame_is_refused(network):
    """A volume of the LiDAR's time is not one of the camera's."""
    text = network.teacher_file.read_text()
    network.teacher_file.write_text(text.replace('pipeline=[]', "pipeline=[], key_ego='CAM_FRONT'"))
    text = network.config.read_text()
    network.config.write_text(text.replace("'train.pkl'", "'train.pkl', key_ego='lidar'"))
    network.write()
    # the student's frame, not that of the teacher's own test
    assert TeacherCache(network.out).manifest['key_ego'] == 'lidar'
    teacher = network.build(str(network.out)).teacher
    inputs, samples = batch_of((3,))
    samples[0].set_metainfo(dict(key_ego='lidar'))
    teacher.outputs(inputs, samples, torch.device('cpu'))
    samples[0].set_metainfo(dict(key_ego='CAM_FRONT'))
    with pytest.raises(ValueError, match='time of lidar.*CAM_FRONT'):
        teacher.outputs(inputs, samples, torch.device('cpu'))


def test_a_missing_cache_stops_the_training_before_its_first_step(network, tmp_path):
    model = network.build(str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='no cached logits'):
        model.init_weights()
