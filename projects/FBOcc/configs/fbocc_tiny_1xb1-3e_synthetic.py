_base_ = [
    './_base_/fbocc_tiny.py',
    '../../../configs/_base_/datasets/synthetic_fbocc.py',
    '../../../configs/_base_/schedules/tiny.py',
    '../../../configs/_base_/default_runtime.py',
]
