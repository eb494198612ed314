# Supervised depth, camera-aware; the losses of FB-OCC over all voxels. The
# occupancy part of Panoptic-FlashOcc, as FlashOCC's
# panoptic-flashocc-r50-depth.
_base_ = './flashocc_r50-m1-256x704_4xb4-24e_occ3d.py'
train_pipeline = [
    _base_.load_images,
    _base_.augment_images,
    dict(_base_.load_points, num_sweeps=0),
    _base_.load_occ,
    _base_.augment_bev,
    _base_.depth_maps,
    _base_.pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    img_view_transformer=dict(
        type='radocc_plugin.LSSViewTransformerBEVDepth',
        out_channels=80,
        loss_depth_weight=1.0,
        depthnet_cfg=dict(aspp_mid_channels=96),
    ),
    img_bev_encoder_backbone=dict(numC_input=80, num_channels=(160, 320, 640)),
    img_bev_encoder_neck=dict(in_channels=640 + 160),
    occ_head=dict(type='radocc_plugin.BEVOCCHead2D_V2'),
)
# Published training starts from the detector's weights (BEVDet, dev2.1).
load_from = 'checkpoints/bevdet-r50-4d-depth-cbgs.pth'
