# The tiny model on the near field: 25 x 25 cells of 1.6 m.
_base_ = './bevformer-occ_tiny.py'
model = dict(
    pts_bbox_head=dict(
        bev_h=25,
        bev_w=25,
        point_cloud_range=(-20.0, -20.0, -1.0, 20.0, 20.0, 5.4),
        positional_encoding=dict(row_num_embed=25, col_num_embed=25),
    )
)
