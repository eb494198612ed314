_base_ = [
    './_base_/bevdet-occ_r50-4d-stereo.py',
    './_base_/occ3d_4d-stereo_384x704.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
# Published training starts from the detector's weights (BEVDet, dev2.1).
load_from = 'checkpoints/bevdet-r50-4d-stereo-cbgs.pth'
