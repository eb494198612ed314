_base_ = [
    './_base_/bevformer-occ_tiny-near.py',
    './_base_/synthetic_queue_near.py',
    '../../../configs/_base_/schedules/near.py',
]
