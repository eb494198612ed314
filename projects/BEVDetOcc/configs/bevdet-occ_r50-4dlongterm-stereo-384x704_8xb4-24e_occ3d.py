# Eight earlier frames, and one more as the reference of stereo.
_base_ = './bevdet-occ_r50-4d-stereo-384x704_8xb4-24e_occ3d.py'
model = dict(
    num_adj=8,
    img_bev_encoder_backbone=dict(numC_input=32 * 9, with_cp=True))
adjacent = tuple(range(1, 10))
train_dataloader = dict(dataset=dict(adjacent=adjacent))
val_dataloader = dict(dataset=dict(adjacent=adjacent))
test_dataloader = val_dataloader
