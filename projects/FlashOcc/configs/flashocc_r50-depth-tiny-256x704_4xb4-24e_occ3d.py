# M0's sizes with supervised depth, as FlashOCC's
# panoptic-flashocc-r50-depth-tiny without its panoptic part.
_base_ = './flashocc_r50-depth-256x704_4xb4-24e_occ3d.py'
model = dict(
    img_view_transformer=dict(grid_config=dict(depth=(1.0, 45.0, 1.0)), out_channels=64),
    img_bev_encoder_backbone=dict(numC_input=64, num_channels=(128, 256, 512)),
    img_bev_encoder_neck=dict(in_channels=512 + 128, out_channels=128),
    occ_head=dict(in_dim=128, out_dim=128),
)
