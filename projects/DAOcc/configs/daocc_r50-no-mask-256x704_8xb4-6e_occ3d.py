# Trained on voxels that no camera sees as well, for RayIoU.
_base_ = './daocc_r50-256x704_8xb4-6e_occ3d.py'
model = dict(heads=dict(occ=dict(use_mask=False, keep_free=0.2)))
val_evaluator = dict(_delete_=True, type='radocc_plugin.RayIoU')
test_evaluator = val_evaluator
