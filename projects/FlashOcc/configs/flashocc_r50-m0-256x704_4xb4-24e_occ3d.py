# M0 halves the depth bins, and the width after the 2D encoder.
_base_ = './flashocc_r50-m1-256x704_4xb4-24e_occ3d.py'
model = dict(
    img_view_transformer=dict(grid_config=dict(depth=(1.0, 45.0, 1.0))),
    img_bev_encoder_neck=dict(out_channels=128),
    occ_head=dict(in_dim=128, out_dim=128),
)
