_base_ = './bevformer-occ_tiny_1xb1-3e_synthetic.py'
model = dict(pts_bbox_head=dict(use_mask=False))
