_base_ = [
    './_base_/bevformer-occ_small.py',
    './_base_/occ3d_720x1280.py',
    './_base_/bevformer_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
# Published training starts from a detector's backbone (FCOS3D).
load_from = 'checkpoints/r101_dcn_fcos3d_pretrain.pth'
