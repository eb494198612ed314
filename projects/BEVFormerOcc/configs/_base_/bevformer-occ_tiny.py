# BEVFormer-Occ for two CPU cores: 1.6 m cells that the head splits into
# voxels.
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.BEVFormerOcc',
    data_preprocessor=dict(type='radocc_plugin.OccDataPreprocessor'),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=18,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_eval=False),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[32, 64],
        out_channels=64,
        num_outs=2),
    pts_bbox_head=dict(
        type='radocc_plugin.BEVFormerOccHead',
        bev_h=50,
        bev_w=50,
        transformer=dict(
            type='radocc_plugin.TransformerOcc',
            pillar_h=4,
            out_dim=32,
            upsample=4,
            num_feature_levels=2,
            encoder=dict(
                type='radocc_plugin.BEVFormerEncoder',
                num_layers=2,
                embed_dims=64,
                num_heads=4,
                num_levels=2,
                num_points=4,
                num_points_in_pillar=4,
                num_temporal_points=4,
                feedforward_channels=128,
                dropout=0.0)),
        positional_encoding=dict(
            type='mmdet.LearnedPositionalEncoding',
            num_feats=32,
            row_num_embed=50,
            col_num_embed=50,
            init_cfg=None),
        use_mask=True,
        # as BEVDet-Occ's on the synthetic world
        class_weight=[
            38.5, 24.1, 27.9, 16.4, 10.6, 27.9, 29.6, 24.6, 36.5, 16.0, 18.2,
            3.5, 14.0, 8.6, 8.6, 6.2, 7.8, 0.6
        ]))
