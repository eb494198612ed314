_base_ = [
    './_base_/fbocc_tiny-near.py',
    '../../../configs/_base_/datasets/synthetic_fbocc_near.py',
    '../../../configs/_base_/schedules/near.py',
]
