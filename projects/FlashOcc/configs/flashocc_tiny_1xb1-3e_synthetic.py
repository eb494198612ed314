_base_ = [
    './_base_/flashocc_tiny.py',
    '../../../configs/_base_/datasets/synthetic.py',
    '../../../configs/_base_/schedules/tiny.py',
    '../../../configs/_base_/default_runtime.py',
]
