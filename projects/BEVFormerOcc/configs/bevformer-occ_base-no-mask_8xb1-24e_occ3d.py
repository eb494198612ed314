# The loss of bevformer_base_occ of CVPR2023-Occ: all voxels.
_base_ = './bevformer-occ_base_8xb1-24e_occ3d.py'
model = dict(pts_bbox_head=dict(use_mask=False))
