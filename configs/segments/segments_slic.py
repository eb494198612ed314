# Compact superpixels of about equal size.
_base_ = '../_base_/segments.py'

model = dict(
    segmenter=dict(
        type='radocc_plugin.Slic', width=400, min_area=60, num_segments=150, compactness=10.0
    )
)
