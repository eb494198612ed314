_base_ = [
    './_base_/bevformer-occ_r50.py',
    './_base_/occ3d_queue_256x704.py',
    './_base_/bevformer_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
auto_scale_lr = dict(base_batch_size=32)
