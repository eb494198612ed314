# FlashOcc for two CPU cores: a 0.8 m map that the neck doubles.
_base_ = '../../../BEVDetOcc/configs/_base_/bevdet-occ_tiny.py'
model = dict(
    img_view_transformer=dict(grid_config=dict(z=(-1, 5.4, 6.4)), collapse_z=True, out_channels=32),
    img_bev_encoder_backbone=dict(
        _delete_=True,
        type='radocc_plugin.CustomResNet',
        numC_input=32,
        num_layer=(1, 1, 1),
        num_channels=(32, 64, 128),
        stride=(1, 2, 2),
    ),
    img_bev_encoder_neck=dict(
        _delete_=True, type='radocc_plugin.FPN_LSS', in_channels=128 + 32, out_channels=32
    ),
    occ_head=dict(
        _delete_=True,
        type='radocc_plugin.BEVOCCHead2D',
        in_dim=32,
        out_dim=32,
        class_weight=_base_.model.occ_head.class_weight,
    ),
)
