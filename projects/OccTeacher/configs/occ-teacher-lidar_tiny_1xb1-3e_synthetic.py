_base_ = './occ-teacher-fusion_tiny_1xb1-3e_synthetic.py'
model = dict(
    img_backbone=None,
    img_neck=None,
    img_view_transformer=None,
    pts_fusion=None,
    depth_from_lidar=False,
)
