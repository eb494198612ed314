_base_ = [
    './_base_/flashocc_tiny-near.py',
    '../../../configs/_base_/datasets/synthetic_near.py',
    '../../../configs/_base_/schedules/near.py',
]
