# FlashOcc with ResNet-50, one earlier frame and temporal stereo (M2), as
# FlashOCC's flashocc-r50-4d-stereo. Its depth bins grow with depth (sid); the
# weights fit linear bins as well, and would put features in wrong places.
_base_ = '../../../BEVDetOcc/configs/_base_/bevdet-occ_r50-4d-stereo.py'
model = dict(
    img_view_transformer=dict(
        grid_config=dict(z=(-1, 5.4, 6.4)), collapse_z=True, sid=True, out_channels=80
    ),
    pre_process_net=dict(type='radocc_plugin.CustomResNet', numC_input=80, num_channels=(80,)),
    img_bev_encoder_backbone=dict(
        _delete_=True,
        type='radocc_plugin.CustomResNet',
        numC_input=80 * 2,
        num_channels=(160, 320, 640),
    ),
    img_bev_encoder_neck=dict(
        _delete_=True, type='radocc_plugin.FPN_LSS', in_channels=640 + 160, out_channels=256
    ),
    occ_head=dict(_delete_=True, type='radocc_plugin.BEVOCCHead2D', in_dim=256, out_dim=256),
)
