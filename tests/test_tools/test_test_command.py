"""tools/test.py on configs and checkpoints that others have."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel

from radocc_plugin.evaluation import testing
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.occ3d import CLASSES, PALETTE
from radocc_plugin.registry import DATASETS, MODELS
from radocc_plugin.structures import OccData
from tests.test_distillation.toy_distillation import ToyData
from tests.test_tools.test_command_lines import load

SEEN = []


@MODELS.register_module(force=True)
class PerfectPredictor(BaseModel):
    """Predicts the labels."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        SEEN.append(len(data_samples))
        for sample in data_samples:
            sample.pred_occ = OccData(semantics=sample.gt_occ.semantics.to(torch.uint8))
        return data_samples


@DATASETS.register_module(force=True)
class ToyTestData(ToyData):
    """As an info file without metainfo gives it."""

    metainfo = LabelSpace(
        label_space='toy',
        classes=CLASSES,
        palette=PALETTE,
        point_cloud_range=(-4.0, -4.0, -1.0, 4.0, 4.0, 2.2),
        voxel_size=0.8,
    ).metainfo()
    ann_file = 'somewhere/radocc_infos_val.pkl'

    def full_init(self):
        pass

    def get_data_info(self, index):
        return {}


CONFIG = dict(
    default_scope='mmengine',
    model=dict(type='radocc_plugin.PerfectPredictor'),
    test_dataloader=dict(
        batch_size=3,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='radocc_plugin.ToyTestData'),
    ),
    test_cfg=dict(),
    test_evaluator=dict(type='radocc_plugin.OccMetric'),
    randomness=dict(seed=0),
    log_level='ERROR',
)


@pytest.fixture
def run(tmp_path):

    def run_(meta=None, arguments=(), **changes):
        SEEN.clear()
        name = f'toy{len(list(tmp_path.glob("*.py")))}'
        config = dict(CONFIG, experiment_name=f'{tmp_path.name}{name}', **changes)
        (tmp_path / f'{name}.py').write_text(
            '\n'.join(f'{key} = {value!r}' for key, value in config.items())
        )
        state = dict(state_dict=dict(weight=torch.zeros(())))
        if meta is not None:
            state['meta'] = meta
        torch.save(state, tmp_path / 'x.pth')
        load('test').main(
            [
                str(tmp_path / f'{name}.py'),
                str(tmp_path / 'x.pth'),
                '--work-dir',
                str(tmp_path / 'work'),
                *arguments,
            ]
        )
        return json.loads((tmp_path / 'work/record.json').read_text())

    return run_


TRAINED = dict(batch_size=8, dataset=dict(type='NowhereToBeFound'))
CONCAT = dict(
    CONFIG['test_dataloader'],
    dataset=dict(
        type='radocc_plugin.ToyConcat', datasets=[dict(type='radocc_plugin.ToyTestData')] * 2
    ),
)


@DATASETS.register_module(force=True)
class ToyConcat(torch.utils.data.ConcatDataset):
    def __init__(self, datasets):
        super().__init__([DATASETS.build(d) for d in datasets])
        self.metainfo = self.datasets[0].metainfo

    def full_init(self):
        pass


@pytest.mark.parametrize(
    'case',
    [
        dict(),
        dict(meta=dict(epoch=3, iter=7, seed=None, cfg='import nothing_here')),
        dict(meta=dict(cfg=dict(model='of another codebase'))),
        dict(default_scope='radocc_plugin', test_evaluator=[dict(type='OccMetric', mask='both')]),
        dict(test_dataloader=CONCAT),
        # what a resumed training leaves, whose infos are not here
        dict(
            train_dataloader=TRAINED,
            resume=True,
            load_from='gone.pth',
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        ),
    ],
    ids=[
        'test only',
        'foreign config',
        'config as dict',
        'without scope',
        'concatenated',
        'left by a resumed run',
    ],
)
def test_a_record_is_written_of(run, case, monkeypatch):
    if 'mask' in str(case):
        monkeypatch.setattr(ToyTestData, '__getitem__', with_lidar_mask)
    record = run(**case)
    assert record['metrics']['mIoU'] == 100
    assert record['mask'] == ('both' if 'mask' in str(case) else 'camera')
    data = record['data']
    twice = case.get('test_dataloader') is CONCAT
    assert data['dataset'] == data['version'] == 'unknown'
    assert data['split'] == ('val+val' if twice else 'val')
    assert data['num_samples'] == sum(SEEN) == (24 if twice else 12)
    assert record['training']['batch_size'] == (8 if 'train_dataloader' in case else None)


def with_lidar_mask(self, index):
    item = ToyData.__getitem__(self, index)
    truth = item['data_samples'].gt_occ
    truth.mask_lidar = truth.mask_camera
    return item


def test_a_record_that_cannot_be_written_stops_before_the_first_batch(run, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match='--record .*file/record.json'):
        run(arguments=['--record', str(tmp_path / 'file/record.json')])
    assert not SEEN


def test_metrics_are_saved_before_anything_else_can_fail(run, monkeypatch, tmp_path):
    write = testing.write_records

    def fail(path, masks, metrics, description):
        if metrics is not None:
            raise OSError('disk full')
        return write(path, masks, metrics, description)

    monkeypatch.setattr(testing, 'write_records', fail)
    with pytest.raises(OSError, match='disk full'):
        run()
    saved = json.loads((tmp_path / 'work/metrics.json').read_text())
    assert saved['occ/mIoU'] == 100 and saved['occ/IoU_truck'] is None


def test_the_record_tells_the_weights_that_training_began_with(run):
    weights = dict(file='pretrained.pth', hash='0123456789abcdef')
    plain, pretrained, other = (
        run(meta=dict(seed=0, initial_weights=w))
        for w in (None, weights, dict(weights, hash='f' * 16))
    )
    assert plain['initial_weights'] is None
    assert pretrained['initial_weights'] == weights
    hashes = {r['config']['hash'] for r in (plain, pretrained, other)}
    assert len(hashes) == 3


@MODELS.register_module(force=True)
class SoftPredictor(BaseModel):
    """Is fairly sure of the labels, in logits of a weighted cross entropy."""

    occ_tap = dict(module='head', layout='b x y z c', class_weight=[2.0] * 17 + [0.5])

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.head = torch.nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        labels = torch.stack([sample.gt_occ.semantics for sample in data_samples])
        weight = torch.tensor(self.occ_tap['class_weight']).log()
        self.head(3.0 * F.one_hot(labels, 18) + weight)
        for sample in data_samples:
            sample.pred_occ = OccData(semantics=sample.gt_occ.semantics.to(torch.uint8))
        return data_samples


def test_the_test_command_measures_and_records_it(run):
    """The class weights are taken out: each voxel has p = e^3 / (e^3 + 17)."""
    model = dict(type='radocc_plugin.SoftPredictor')
    arguments = ('--metrics', 'miou', 'likelihood')
    record = run(model=model, arguments=arguments)
    metrics = record['metrics']
    assert metrics['NLL'] == pytest.approx(-math.log(math.exp(3) / (math.exp(3) + 17)), rel=1e-5)
    assert metrics['depth_error'] >= 0 and metrics['mIoU'] == 100
    with pytest.raises(ValueError, match='OccLikelihood takes the logits of one view'):
        run(model=model, arguments=(*arguments, '--tta'))
    with pytest.raises(ValueError, match='PerfectPredictor brings no occ_tap'):
        run(arguments=arguments)
    assert 'NLL' not in run(model=model)['metrics']
