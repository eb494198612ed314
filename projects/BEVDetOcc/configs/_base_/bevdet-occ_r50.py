# Single-frame BEVDet-Occ with ResNet-50, as FlashOCC's bevdet-occ-r50.
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.BEVDetOcc',
    data_preprocessor=dict(
        type='radocc_plugin.OccDataPreprocessor', channel_order='bgr', non_blocking=True
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        out_indices=(2, 3),
        norm_eval=False,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            # torchvision://resnet50, without the need of torchvision
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    img_neck=dict(type='radocc_plugin.CustomFPN', in_channels=[1024, 2048], out_channels=256),
    img_view_transformer=dict(
        type='radocc_plugin.LSSViewTransformer',
        grid_config=dict(
            x=(-40, 40, 0.4), y=(-40, 40, 0.4), z=(-1, 5.4, 0.4), depth=(1.0, 45.0, 0.5)
        ),
        in_channels=256,
        out_channels=32,
        downsample=16,
    ),
    img_bev_encoder_backbone=dict(
        type='radocc_plugin.CustomResNet3D',
        numC_input=32,
        num_layer=(1, 2, 4),
        num_channels=(32, 64, 128),
        stride=(1, 2, 2),
    ),
    img_bev_encoder_neck=dict(type='radocc_plugin.LSSFPN3D', in_channels=224, out_channels=32),
    occ_head=dict(type='radocc_plugin.BEVOCCHead3D', in_dim=32, out_dim=32),
)
