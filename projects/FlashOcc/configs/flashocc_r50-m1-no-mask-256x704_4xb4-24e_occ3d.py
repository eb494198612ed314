# The loss over all voxels, not only those that a camera sees.
_base_ = './flashocc_r50-m1-256x704_4xb4-24e_occ3d.py'
model = dict(occ_head=dict(use_mask=False))
