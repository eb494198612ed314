_base_ = './bevformer-occ_r50-256x704_8xb4-24e_occ3d.py'
model = dict(pts_bbox_head=dict(use_mask=False))
