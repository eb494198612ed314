"""Golden cases of whole detectors as our models and batches."""

import torch

from radocc_plugin.models.bevdet import BEVDetOcc
from radocc_plugin.structures import OccData, OccDataSample

# Published arguments that have one value in all released configs.
IGNORED = dict(
    img_backbone=(),
    img_neck=('num_outs', 'start_level', 'out_ids'),
    img_view_transformer=('input_size',),
    img_bev_encoder_backbone=(),
    img_bev_encoder_neck=(),
    occ_head=('use_predicter', 'loss_occ'),
)


def build_detector(case, **head):
    """The model that a case's config describes, with changes of its head."""
    published = case.config['model']
    config = dict(
        data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor'),
        num_adj=published.get('num_adj', 0),
        occ_head=dict(type='BEVOCCHead3D', use_mask=published.get('use_mask', True)),
    )
    for name, ignored in IGNORED.items():
        if name in published:
            config[name] = {
                key: value for key, value in published[name].items() if key not in ignored
            }
    config['occ_head'].update(head)
    if 'pre_process' in published:
        config['pre_process_net'] = dict(published['pre_process'])
    lift = config['img_view_transformer']
    stereo = lift['type'] == 'LSSViewTransformerBEVStereo'
    if stereo:
        depth_net = dict(lift['depthnet_cfg'])
        assert depth_net.pop('stereo') and not depth_net.pop('use_dcn')
        lift['matching_bias'] = depth_net.pop('bias')
        lift['depthnet_cfg'] = depth_net
    for name, part in config.items():
        if isinstance(part, dict) and name != 'data_preprocessor':
            scope = 'radocc_plugin'
            if name == 'img_backbone':
                scope, part['type'] = (
                    (scope, 'Stereo' + part['type']) if stereo else ('mmdet', part['type'])
                )
            part['type'] = f'{scope}.{part["type"]}'
    return BEVDetOcc(**config)


def make_batch(case):
    """Inputs and data samples of a case; its notes tell the layouts."""
    ego2global = frames_of(case, 'ego2global')
    # published: the key ego pose is that of the first camera
    cam2ego = torch.linalg.inv(ego2global[:, :1, :1]) @ ego2global @ frames_of(case, 'sensor2ego')
    cam2img, rotation, shift = (
        frames_of(case, name) for name in ('intrin', 'post_rot', 'post_tran')
    )
    for values in (cam2img, rotation, shift):
        assert torch.equal(values, values[:, :1].expand_as(values))
    image = torch.zeros(*rotation.shape[:3], 4, 4, dtype=torch.float64)
    image[..., :3, :3], image[..., :3, 3] = rotation, shift
    image[..., 3, 3] = 1
    labels, mask = case.input('labels'), case.input('mask_camera')
    samples = []
    for b, flip in enumerate(case.input('bda').double()):
        bda = torch.eye(4, dtype=torch.float64)
        bda[:3, :3] = flip
        sample = OccDataSample(
            metainfo=dict(
                cam2img=cam2img[b, 0].numpy(),
                cam2ego=cam2ego[b, 0].numpy(),
                adjacent_cam2ego=cam2ego[b, 1:].numpy(),
                img_aug_mat=image[b, 0].numpy(),
                bda_mat=bda.numpy(),
            )
        )
        sample.gt_occ = OccData(semantics=labels.expand_as(mask)[b], mask_camera=mask[b])
        if 'gt_depth' in case.input_names():
            sample.gt_depth = case.input('gt_depth')[b]
        samples.append(sample)
    # camera-major (B, 6 * T, ...) to frame-major
    imgs = case.input('imgs').unflatten(1, (6, -1)).transpose(1, 2)
    return dict(imgs=imgs[:, 0], adjacent_imgs=imgs[:, 1:]), samples


def frames_of(case, name):
    """Matrices (B, T, 6, ...), float64, of the frame-major (B, T * 6, ...)."""
    return case.input(name).double().unflatten(1, (-1, 6))


class Recorder:
    """Keeps what modules return while a model runs."""

    def __init__(self, model, *names):
        self.outputs = {name: [] for name in names}
        for name in names:
            model.get_submodule(name).register_forward_hook(
                lambda module, args, out, name=name: self.outputs[name].append(out)
            )

    def __getitem__(self, name):
        return self.outputs[name]
