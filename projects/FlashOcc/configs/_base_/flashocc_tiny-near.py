# The tiny model on the near field: a map of 50 x 50 cells, 24 depth bins.
_base_ = './flashocc_tiny.py'
model = dict(
    img_view_transformer=dict(
        grid_config=dict(x=(-20, 20, 0.8), y=(-20, 20, 0.8), depth=(1.0, 25.0, 1.0))
    ),
    # 50 cells are halved once only
    img_bev_encoder_backbone=dict(stride=(1, 2, 1)),
    img_bev_encoder_neck=dict(scale_factor=2),
)
