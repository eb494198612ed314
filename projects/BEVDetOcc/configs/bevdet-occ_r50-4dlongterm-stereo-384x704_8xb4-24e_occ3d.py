# Eight earlier frames, and one more as the reference of stereo.
_base_ = './bevdet-occ_r50-4d-stereo-384x704_8xb4-24e_occ3d.py'
model = dict(
    num_adj=8,
    img_view_transformer=dict(depthnet_cfg=dict(with_cp=True)),
    pre_process_net=dict(with_cp=True),
    img_bev_encoder_backbone=dict(numC_input=32 * 9, with_cp=True),
)
# Published training starts from the detector's weights (BEVDet, dev2.1).
load_from = 'checkpoints/bevdet-r50-4dlongterm-stereo-cbgs.pth'
adjacent = tuple(range(1, 10))
train_dataloader = dict(dataset=dict(adjacent=adjacent))
val_dataloader = dict(dataset=dict(adjacent=adjacent))
test_dataloader = val_dataloader
