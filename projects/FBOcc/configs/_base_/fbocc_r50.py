# FB-OCC with ResNet-50 and 16 past frames, as
# fbocc-r50-cbgs_depth_16f_16x4_20e.
custom_imports = dict(imports=['radocc_plugin.models'])
model = dict(
    type='radocc_plugin.FBOcc',
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
    img_neck=dict(
        type='radocc_plugin.CustomFPN', in_channels=[1024, 2048], out_channels=256, with_cp=True
    ),
    grid_config=dict(x=(-40, 40, 0.8), y=(-40, 40, 0.8), z=(-1, 5.4, 0.8), depth=(2.0, 42.0, 0.5)),
    depth_net=dict(in_channels=256, mid_channels=512, aspp_mid_channels=512, with_cp=True),
    backward_projection=dict(anchors_z=(-1, 5.4, 1.6)),
    channels=80,
    num_history=16,
    img_bev_encoder_backbone=dict(
        type='radocc_plugin.ResNet3D', in_channels=80, channels=(64, 128, 256), with_cp=True
    ),
    img_bev_encoder_neck=dict(
        type='radocc_plugin.FPN3D', in_channels=(64, 128, 256), out_channels=256, with_cp=True
    ),
    occupancy_head=dict(type='radocc_plugin.FBOccHead', in_channels=256, with_cp=True),
)
