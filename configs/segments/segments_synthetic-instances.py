# Ablation, upper bound: the true segments of the synthetic world.
_base_ = '../_base_/segments.py'

model = dict(
    threads=1,  # its ray casting holds the GIL
    segmenter=dict(type='radocc_plugin.SyntheticInstances', data_root='data/synthetic', min_area=4),
)
