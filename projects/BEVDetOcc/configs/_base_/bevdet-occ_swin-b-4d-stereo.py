# BEVDet-Occ with Swin-B, as dev2.1's
# bevdet-occ-stbase-4d-stereo-512x1408-24e.
_base_ = './bevdet-occ_r50-4d-stereo.py'
model = dict(
    img_backbone=dict(
        _delete_=True,
        type='radocc_plugin.StereoSwinTransformer',
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=12,
        out_indices=(2, 3),
        drop_path_rate=0.1,
        with_cp=True,
        # ImageNet-22k, the file that mmdet's Mask2Former takes for its Swin-B
        convert_weights=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/'
            'download/v1.0.0/swin_base_patch4_window12_384_22k.pth',
        ),
    ),
    img_neck=dict(
        _delete_=True,
        type='radocc_plugin.FPN_LSS',
        in_channels=512 + 1024,
        out_channels=512,
        scale_factor=2,
        input_feature_index=(0, 1),
        extra_upsample=None,
    ),
    img_view_transformer=dict(in_channels=512),
)
