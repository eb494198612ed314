_base_ = [
    './_base_/flashocc_swin-b-4d-stereo.py',
    '../../BEVDetOcc/configs/_base_/occ3d_4d-stereo_512x1408.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
# Published training starts from the detector's weights (BEVDet, dev2.1).
load_from = 'checkpoints/bevdet-stbase-4d-stereo-512x1408-cbgs.pth'
optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(base_batch_size=16)
sync_bn = 'torch'
