"""What the analysis says of a toy student and teacher."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tests.test_distillation.toy_distillation import batch_of, distilled

from radocc_plugin.geometry import Cameras
from radocc_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'analyse_distillation', ROOT / 'tools' / 'analyse_distillation.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def study(tool, visible=None, **options):
    torch.manual_seed(0)
    model = MODELS.build(distilled(**options))
    inputs, samples = batch_of()
    if visible is not None:
        for sample in samples:
            sample.gt_occ.mask_camera[visible:] = False
    return tool.study(model, dict(inputs=inputs, data_samples=samples))


def test_gradients_are_measured_against_the_students_own(tool):
    once, twice = (study(tool, rdc=weight)['losses'] for weight in (1.0, 2.0))
    assert once['loss_occ']['ratio'] == pytest.approx(1)
    assert once['loss_occ']['cosine'] == pytest.approx(1, abs=1e-5)
    assert twice['loss_rdc']['ratio'] == pytest.approx(2 * once['loss_rdc']['ratio'], rel=1e-4)
    assert abs(once['loss_rdc']['cosine']) < 1


@pytest.mark.parametrize('visible, share', [(None, 1.0), (0, 0.0)])
def test_the_share_on_visible_voxels_follows_the_mask(tool, visible, share):
    losses = study(tool, visible)['losses']
    assert losses['loss_rdc']['visible'] == pytest.approx(share, abs=1e-5)


def test_every_ray_is_counted_once(tool):
    studies = [study(tool), study(tool)]
    rows = tool.ray_rows(studies)[:-1]  # without the tenth of most KL
    for column in (1, 2):
        total = sum(float(row[column].rstrip('%')) for row in rows)
        assert total == pytest.approx(100, abs=3)  # rounded numbers
    head, *losses = tool.gradient_rows(studies)
    assert head[0] == 'loss_occ' and head[3:5] == ['1.000', '+1.00']
    assert {row[0] for row in losses} > {'loss_rdc'}


def test_the_pull_is_shared_out_by_the_distance_to_the_nearest_camera(tool):
    inputs, samples = batch_of()
    cameras = Cameras.from_data_samples(samples)
    box, shape = (-4.0, -4.0, -1.0, 4.0, 4.0, 1.0), (4, 2, 1)
    distances = tool.camera_distances(cameras, box, shape)
    places = (cameras.bda_mat[:, None].double() @ cameras.cam2ego.double())[..., :3, 3]
    for sample in range(len(samples)):
        for x in range(4):
            for y in range(2):
                centre = torch.tensor([-3.0 + 2 * x, -2.0 + 4 * y, 0.0])
                expected = min(float((centre - place).norm()) for place in places[sample])
                assert float(distances[sample, x, y, 0]) == pytest.approx(expected, rel=1e-5)
    shares = study(tool)['losses']['loss_rdc']['pull']
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(
    'pull, cosine, hidden, says',
    [
        ([0.4, 0.4, 0.2, 0, 0, 0], 0.1, 0.1, 'within 4 m'),
        ([0, 0, 0.5, 0.5, 0, 0], -0.4, 0.1, 'against the labels'),
        ([0, 0, 0.5, 0.5, 0, 0], 0.4, 0.8, 'no label observed'),
        ([0, 0, 0.5, 0.5, 0, 0], 0.4, 0.1, 'Nothing stands out'),
    ],
)
def test_the_advice_names_what_stands_out(tool, pull, cosine, hidden, says):
    studies = [
        dict(
            losses=dict(
                loss_occ=dict(pull=[1, 0, 0, 0, 0, 0], cosine=1.0),
                loss_rdc=dict(pull=pull, cosine=cosine),
            ),
            hidden=hidden,
        )
    ]
    assert says in tool.advice(studies, ['loss_occ'])


def test_a_plain_student_is_refused(tool):
    path = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
    args = tool.parse_args([path])
    with pytest.raises(ValueError, match='takes the config of a distilled'):
        tool.load_model(Config.fromfile(ROOT / path), args)


@pytest.mark.parametrize(
    'options',
    [dict(schedules=dict(depth=dict(ramp=100), semantics=dict(start=50))), dict(feature=1.0)],
    ids=['schedules', 'adapter'],
)
def test_scheduled_losses_and_adapters_are_analysed(tool, tmp_path, options):
    config = distilled(**options)
    saved = MODELS.build(config)
    torch.save(saved.state_dict(), tmp_path / 'student.pth')
    args = tool.parse_args(
        ['config.py', '--student', str(tmp_path / 'student.pth'), '--device', 'cpu']
    )
    model = tool.load_model(Config(dict(model=config)), args)
    for key, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    inputs, samples = batch_of()
    losses = tool.study(model, dict(inputs=inputs, data_samples=samples))
    assert {'loss_rdc', 'loss_rsc_kl'} <= set(losses['losses'])


def test_a_checkpoint_of_another_model_is_named(tool, tmp_path):
    torch.save(dict(nothing=torch.zeros(1)), tmp_path / 'other.pth')
    args = tool.parse_args(
        ['config.py', '--student', str(tmp_path / 'other.pth'), '--device', 'cpu']
    )
    with pytest.raises(ValueError, match='other.pth does not fit'):
        tool.load_model(Config(dict(model=distilled())), args)


@pytest.mark.parametrize('sampler', ['segments', 'lidar'])
def test_rays_are_drawn_as_the_renderer_is_told(tool, sampler):
    config = distilled()
    config['renderer']['ray_sampler'] = sampler
    model = MODELS.build(config)
    inputs, samples = batch_of()
    inputs['points'] = [torch.tensor([[3.0, 0.2, 0.5], [2.0, -0.5, 0.3]])] * 2
    rays = tool.study(model, dict(inputs=inputs, data_samples=samples))['rays']
    assert len(rays['kl']) > 0


def test_frames_without_labels_count_for_no_ratio(tool):
    losses = study(tool, visible=0)['losses']
    model = MODELS.build(distilled())
    inputs, samples = batch_of()
    for sample in samples:
        sample.gt_occ.semantics.fill_(255)
    row = tool.study(model, dict(inputs=inputs, data_samples=samples))
    assert 'ratio' in losses['loss_rdc']
    assert 'ratio' not in row['losses']['loss_rdc']
