# The stand-in for SAM that needs no weights.
_base_ = '../_base_/segments.py'

model = dict(
    segmenter=dict(
        type='radocc_plugin.Felzenszwalb', width=400, min_area=60, scale=200.0, sigma=0.8
    )
)
