# A run that makes segment maps: tools/generate_segments.py sets the paths.
default_scope = 'mmengine'
data_root = 'data/nuscenes'
ann_file = [f'{data_root}/radocc_infos_train.pkl']
segments_root = f'{data_root}/segments'

model = dict(type='radocc_plugin.SegmentWriter', segments_root=segments_root)
model_wrapper_cfg = dict(type='radocc_plugin.Unwrapped')

test_dataloader = dict(
    batch_size=8,
    num_workers=2,
    # not rounded up: no image twice, and none at all where all are done
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='radocc_plugin.CameraImages',
        ann_file=ann_file,
        data_root=data_root,
        segments_root=segments_root,
    ),
)
test_evaluator = dict(type='radocc_plugin.SegmentStatistics')
test_cfg = dict()

default_hooks = dict(logger=dict(type='LoggerHook', interval=10))
