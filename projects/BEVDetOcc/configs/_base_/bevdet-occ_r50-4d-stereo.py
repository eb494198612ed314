# BEVDet-Occ with ResNet-50, one earlier frame and temporal stereo, as dev2.1's
# bevdet-occ-r50-4d-stereo-24e.
_base_ = './bevdet-occ_r50.py'
model = dict(
    num_adj=1,
    img_backbone=dict(type='radocc_plugin.StereoResNet', out_indices=(0, 2, 3)),
    img_view_transformer=dict(
        type='radocc_plugin.LSSViewTransformerBEVStereo',
        loss_depth_weight=0.05,
        depthnet_cfg=dict(aspp_mid_channels=96),
    ),
    pre_process_net=dict(
        type='radocc_plugin.CustomResNet3D',
        numC_input=32,
        num_layer=(1,),
        num_channels=(32,),
        stride=(1,),
    ),
    # the channels of both frames
    img_bev_encoder_backbone=dict(numC_input=64),
)
