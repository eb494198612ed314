# BEVFormer-Occ with ResNet-50 for images of 256 x 704; not published. BEV
# cells of 0.8 m that the head splits into voxels.
_base_ = './bevformer-occ_base.py'
model = dict(
    # as the teacher that its twin shares with BEVDet-Occ
    data_preprocessor=dict(
        _delete_=True,
        type='radocc_plugin.OccDataPreprocessor',
        channel_order='bgr',
        non_blocking=True,
    ),
    use_grid_mask=False,
    img_backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=50,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        # the past frames of a queue are run in eval mode
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            # torchvision://resnet50, without the need of torchvision
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    img_neck=dict(num_outs=3),
    pts_bbox_head=dict(
        bev_h=100,
        bev_w=100,
        transformer=dict(
            pillar_h=8, upsample=2, num_feature_levels=3, encoder=dict(num_layers=3, num_levels=3)
        ),
        positional_encoding=dict(row_num_embed=100, col_num_embed=100),
    ),
)
