# FlashOcc with ResNet-50 (M1): bird's-eye-view maps of 64 channels, a 2D
# encoder, and columns of voxels from channels. As FlashOCC's flashocc-r50.
_base_ = '../../../BEVDetOcc/configs/_base_/bevdet-occ_r50.py'
model = dict(
    img_view_transformer=dict(grid_config=dict(z=(-1, 5.4, 6.4)), collapse_z=True, out_channels=64),
    img_bev_encoder_backbone=dict(
        _delete_=True,
        type='radocc_plugin.CustomResNet',
        numC_input=64,
        num_channels=(128, 256, 512),
    ),
    img_bev_encoder_neck=dict(
        _delete_=True, type='radocc_plugin.FPN_LSS', in_channels=512 + 128, out_channels=256
    ),
    occ_head=dict(_delete_=True, type='radocc_plugin.BEVOCCHead2D', in_dim=256, out_dim=256),
)
