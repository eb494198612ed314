# Ablation, control: the segments of another folder in random places.
_base_ = '../_base_/segments.py'

model = dict(
    segmenter=dict(
        type='radocc_plugin.RandomSegments', reference_root='data/synthetic/segments', seed=0
    )
)
