# BEVDet-Occ with an earlier frame and temporal stereo for two CPU cores.
_base_ = './bevdet-occ_tiny.py'
model = dict(
    num_adj=1,
    img_backbone=dict(type='radocc_plugin.StereoResNet', out_indices=(0, 2, 3)),
    img_neck=dict(in_channels=[64, 128]),
    img_view_transformer=dict(
        type='radocc_plugin.LSSViewTransformerBEVStereo',
        downsample=16,
        depthnet_cfg=dict(aspp_mid_channels=16),
    ),
    pre_process_net=dict(
        type='radocc_plugin.CustomResNet3D',
        numC_input=16,
        num_layer=(1,),
        num_channels=(16,),
        stride=(1,),
    ),
    # the first level is the stack of both frames itself
    img_bev_encoder_backbone=dict(numC_input=32, num_channels=(32, 32, 64)),
    img_bev_encoder_neck=dict(in_channels=128),
)
