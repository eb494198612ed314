"""Golden cases of DAOcc as our modules, weights and inputs."""

import torch

from radocc_plugin.models.daocc import DAOcc, FusionGeometry
from radocc_plugin.models.occ_teacher.sparse_encoder import has_spconv

# Published arguments that have one value in all configs, or none of ours.
IGNORED = {
    'SparseEncoder': ('sparse_shape', 'order', 'block_type'),
    'GeneralizedLSSFPN': ('start_level', 'num_outs', 'norm_cfg', 'act_cfg', 'upsample_cfg'),
    'BEVOCCHead2D': ('use_predicter', 'class_balance', 'loss_occ'),
}
NAMES = {
    'SparseEncoder': 'SparseBEVEncoder',
    'BEVTransformV2': 'BEVTransform',
    'BEVOCCHead2D': 'DAOccHead',
}
CONSTANTS = ('ref_3d', 'ref_points')


def our_config(published: dict) -> dict:
    """Our config of a published module."""
    kind = published['type']
    config = {key: value for key, value in published.items() if key not in IGNORED.get(kind, ())}
    scope = 'mmdet' if kind == 'ResNet' else 'radocc_plugin'
    config['type'] = f'{scope}.{NAMES.get(kind, kind)}'
    if kind == 'BEVTransformV2':
        bounds = list(zip(*(config.pop(axis) for axis in 'xyz')))
        config['point_cloud_range'] = (*bounds[0], *bounds[1])
        config['grid_shape'] = [config.pop(n) for n in ('xs', 'ys', 'zs')]
        for name in ('top_type', 'input_size'):
            config.pop(name)
    if kind == 'BEVOCCHead2D':
        sample = config['coordinate_transform']
        x0, x1, y0, y1, _, _ = sample['point_range']
        left, right, low, high = sample['lidar_point_range']
        config['coordinate_transform'] = dict(
            point_cloud_range=(x0, y0, -1, x1, y1, 5.4),
            grid_shape=sample['point_num'][:2],
            lidar_range=(left, low, right, high),
            in_channels=sample['in_dim'],
        )
        assert sample['out_dim'] == config['in_dim']
    return config


def build_detector(published: dict) -> DAOcc:
    """The model of a case's ``model``."""
    encoders = published['encoders']
    fuser = dict(published['fuser'])
    fuser.pop('type')
    return DAOcc(
        encoders=dict(
            camera={name: our_config(part) for name, part in encoders['camera'].items()},
            lidar=dict(
                voxelize=dict(encoders['lidar']['voxelize'], type='radocc_plugin.HardVoxelMean'),
                backbone=our_config(encoders['lidar']['backbone']),
            ),
        ),
        fuser=fuser,
        decoder={name: our_config(part) for name, part in published['decoder'].items()},
        heads=dict(occ=our_config(published['heads']['occ'])),
    )


def published_state(module, prefix: str = '') -> dict:
    """A state dict of zeros with published names and shapes."""
    state = {prefix + key: torch.zeros_like(value) for key, value in module.state_dict().items()}
    for name, layer in module.named_modules():
        key = f'{prefix}{name}.weight'
        if hasattr(layer, 'subm') and has_spconv():
            state[key] = state[key].permute(1, 2, 3, 4, 0).contiguous()
    return state


def fill(golden, case, module, prefix: str = '') -> None:
    """Gives a module the case's weights; constants stay."""
    state = {
        key: value
        for key, value in published_state(module, prefix).items()
        if not key.endswith(CONSTANTS)
    }
    golden.fill_(state, case.config['weight_seed'], gains=case.config.get('gains', ()))
    state = {key[len(prefix) :]: value for key, value in state.items()}
    keys = module.load_state_dict(state, strict=False)
    assert not keys.unexpected_keys
    assert all(key.endswith(CONSTANTS) for key in keys.missing_keys)


def geometry_of(case) -> FusionGeometry:
    """The matrices of a case; what it lacks is the identity."""
    names = case.input_names()
    batch = len(case.input('lidar_aug_matrix'))

    def matrix(name):
        if name in names:
            return case.input(name).double()
        return torch.eye(4).double().expand(batch, 4, 4)

    cam2img = cam2lidar = img_aug_mat = torch.eye(4).expand(batch, 1, 4, 4)
    if 'camera2lidar' in names:
        cam2img, cam2lidar, img_aug_mat = (
            case.input(name).double()
            for name in ('camera_intrinsics', 'camera2lidar', 'img_aug_matrix')
        )
    return FusionGeometry(
        cam2img[..., :3, :3],
        cam2lidar,
        img_aug_mat,
        matrix('lidar2ego'),
        matrix('lidar_aug_matrix'),
        matrix('occ_aug_matrix'),
        torch.ones(batch, 2),
    )


def gradient(parameters: dict, name: str):
    """L2 norm of the gradient of a parameter."""
    return parameters[name].grad.norm()
