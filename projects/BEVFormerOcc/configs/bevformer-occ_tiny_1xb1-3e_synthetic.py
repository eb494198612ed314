_base_ = [
    './_base_/bevformer-occ_tiny.py',
    './_base_/synthetic_queue.py',
    '../../../configs/_base_/schedules/tiny.py',
    '../../../configs/_base_/default_runtime.py',
]
