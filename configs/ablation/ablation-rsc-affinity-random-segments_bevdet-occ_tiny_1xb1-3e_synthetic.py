_base_ = './ablation-rsc-affinity_bevdet-occ_tiny_1xb1-3e_synthetic.py'
load_segments = dict(
    type='radocc_plugin.LoadSegments', size=(225, 400), segments_root='segments_random'
)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.radocc_train_pipeline[:-2], load_segments, _base_.pack])
)
