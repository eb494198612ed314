# Our types are named with their scope; MMEngine's need none.
default_scope = 'mmengine'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='radocc_plugin.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    finite_steps=dict(type='radocc_plugin.FiniteStepHook', max_skips=20),
    sampler_seed=dict(type='radocc_plugin.EpochSeedHook'),
    label_space=dict(type='radocc_plugin.CheckLabelSpaceHook'),
)
log_processor = dict(window_size=10)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)

log_level = 'INFO'
load_from = None
resume = False
