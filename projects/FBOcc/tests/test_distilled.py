"""FB-OCC in the distiller, and through the runner on the synthetic world."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint

from radocc_plugin.datasets.transforms.bev import bda_matrix
from radocc_plugin.registry import MODELS
from tests.support.models import build_model, load_config, make_world
from tests.support.streams import make_frames

NAME = 'fbocc_tiny_1xb1-3e_synthetic.py'
PLAIN = f'projects/FBOcc/configs/{NAME}'
RADOCC = f'configs/radocc/radocc_{NAME}'


def test_a_student_is_tapped_and_learns_from_rendering():
    """In a turned frame, which its teacher is told too."""
    model = build_model(RADOCC, **{'teacher.checkpoint': None, 'renderer.max_rays': 300})
    inputs, samples = make_frames(0, size=(96, 256))[0]
    samples[0].segments = torch.arange(6 * 4 * 5).view(6, 4, 5).int()
    samples[0].set_metainfo(dict(bda_mat=bda_matrix(15.0, 1.0, True, False)))
    met = []
    teacher = model.teacher.model(torch.device('cpu'))
    teacher.img_view_transformer.register_forward_pre_hook(
        lambda module, args: met.append(args[1].bda_mat[0].numpy())
    )
    losses = model(inputs, samples, mode='loss')
    np.testing.assert_array_equal(met[0], samples[0].bda_mat)
    own = model.student(inputs, samples, mode='loss')
    assert own.keys() < losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    rendered = [losses[name] for name in losses.keys() - own.keys()]
    sum(loss for loss in rendered if loss.requires_grad).backward()
    assert model.student.occupancy_head.occ_pred_conv[3].weight.grad.any()


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('world'), frames=4)


def train(path, world, work_dir, epochs=1, resume=False, **changes):
    """The model and its history after epochs of four frames each."""
    config = load_config(path)
    config.merge_from_dict({
        'work_dir': str(work_dir),
        'experiment_name': f'{work_dir.name}_{epochs}',
        'resume': resume,
        'train_cfg': dict(max_epochs=epochs, val_interval=9),
        'default_hooks.logger.interval': 1,
        **{f'{loader}_dataloader.num_workers': 0
           for loader in ('train', 'val', 'test')},
        **{f'{loader}_dataloader.dataset.data_root': str(world)
           for loader in ('train', 'val', 'test')},
        **changes
    })  # yapf: disable
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


@pytest.mark.slow
def test_zero_weights_train_like_the_plain_student(world, tmp_path):
    """Bit for bit; and every checkpoint is the plain student's."""
    plain = train(PLAIN, world, tmp_path / 'plain').model
    runner = train(
        RADOCC,
        world,
        tmp_path / 'twin',
        **{
            'model.teacher.checkpoint': None,
            'model.losses.depth.loss_weight': 0.0,
            'model.losses.semantics.loss_weight': 0.0,
        },
    )
    assert runner.iter == 4
    state, twin = plain.state_dict(), runner.model.state_dict()
    assert state.keys() == twin.keys()
    assert all(torch.equal(state[key], twin[key]) for key in state)
    student = MODELS.build(load_config(PLAIN).model)
    load_checkpoint(student, str(tmp_path / 'twin' / 'epoch_1.pth'), strict=True)
    assert all(torch.equal(student.state_dict()[k], v) for k, v in state.items())


@pytest.mark.slow
def test_the_twin_trains_and_tests_on_the_synthetic_world(world, tmp_path):
    """Labels, depths, the past and both renderings are used."""
    runner = train(
        RADOCC,
        world,
        tmp_path / 'twin',
        **{'model.teacher.checkpoint': None, 'model.renderer.max_rays': 300},
    )
    scalars = runner.message_hub.log_scalars
    for name in (
        'loss_focal',
        'loss_sem_scal',
        'loss_geo_scal',
        'loss_depth',
        'loss_rdc',
        'loss_rsc_kl',
    ):
        values = scalars[f'train/{name}'].data[0]
        assert len(values) == 4 and np.isfinite(values).all(), name
    (memory,) = runner.model.student.streams['train'].memories.values()
    assert memory.steps.max() == 1  # sequences of half a scene
    runner.load_or_resume()
    metrics = runner.test()
    assert 0 <= metrics['occ/mIoU'] <= 100
    (memory,) = runner.model.student.streams['test'].memories.values()
    assert memory.steps.tolist() == [0, 1, 2, 3]


def test_twin_loads_the_depths_of_its_student():
    """Turned alike; past sweeps are in no depth map."""
    for name in (NAME, 'fbocc_r50-256x704_16xb4-20e_occ3d.py'):
        own, twin = (
            Config.fromfile(path).train_dataloader.dataset.pipeline
            for path in (f'projects/FBOcc/configs/{name}', f'configs/radocc/radocc_{name}')
        )
        for kind in ('LoadLidarPoints', 'AugmentBEV', 'PointsToDepthMaps'):
            one, other = (
                [dict(step, num_sweeps=None) for step in pipeline if step.type.endswith(kind)]
                for pipeline in (own, twin)
            )
            assert one == other and len(one) == 1
