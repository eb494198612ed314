# Two levels of image features and three layers, as CVPR2023-Occ's
# bevformer_small_occ.
_base_ = './bevformer-occ_base.py'
model = dict(
    img_backbone=dict(out_indices=(2, 3), with_cp=True),
    img_neck=dict(in_channels=[1024, 2048], num_outs=2),
    pts_bbox_head=dict(transformer=dict(encoder=dict(num_layers=3, num_levels=2))),
)
