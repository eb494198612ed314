# The loss of bevformer_small_occ of CVPR2023-Occ: all voxels.
_base_ = './bevformer-occ_small_8xb1-24e_occ3d.py'
model = dict(pts_bbox_head=dict(use_mask=False))
