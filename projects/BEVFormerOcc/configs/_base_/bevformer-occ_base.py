# BEVFormer-Occ with ResNet-101-DCN, as CVPR2023-Occ's bevformer_base_occ, but
# for the camera mask in the loss and the shift of the previous BEV. For
# weights of that code: shift_frame='lidar' of the transformer.
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.BEVFormerOcc',
    data_preprocessor=dict(
        type='radocc_plugin.OccDataPreprocessor',
        mean=(103.53, 116.28, 123.675),
        std=(1.0, 1.0, 1.0),
        channel_order='bgr',
        non_blocking=True,
        pad_size_divisor=32,
    ),
    use_grid_mask=True,
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=101,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        add_extra_convs='on_output',
        num_outs=4,
        relu_before_extra_convs=True,
    ),
    pts_bbox_head=dict(
        type='radocc_plugin.BEVFormerOccHead',
        bev_h=200,
        bev_w=200,
        transformer=dict(
            type='radocc_plugin.TransformerOcc',
            pillar_h=16,
            out_dim=32,
            num_feature_levels=4,
            shift_frame='ego',
            encoder=dict(
                type='radocc_plugin.BEVFormerEncoder',
                num_layers=4,
                embed_dims=256,
                num_heads=8,
                num_levels=4,
                num_points=8,
                num_points_in_pillar=8,
                feedforward_channels=512,
            ),
        ),
        positional_encoding=dict(
            type='mmdet.LearnedPositionalEncoding',
            num_feats=128,
            row_num_embed=200,
            col_num_embed=200,
            # N(0, 1), as published, where mmdet has U(0, 1)
            init_cfg=None,
        ),
        use_mask=True,
    ),
)
