# RadOcc's LiDAR-only teacher: 128 channels straight into the BEV encoder.
_base_ = './occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d.py'
model = dict(
    img_backbone=None,
    img_neck=None,
    img_view_transformer=None,
    pts_fusion=None,
    depth_from_lidar=False,
    pts_middle_encoder=dict(out_channels=128),
    img_bev_encoder_backbone=dict(numC_input=128),
)
