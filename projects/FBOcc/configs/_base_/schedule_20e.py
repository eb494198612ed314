# FB-OCC: 16 x 4, constant learning rate after a warm-up, twenty epochs of 1999
# iterations, each four and a half times the training set; mixed precision with
# --amp, as published.
_base_ = '../../../../configs/_base_/default_runtime.py'
epoch = 1999
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=200)]
train_cfg = dict(by_epoch=False, max_iters=20 * epoch, val_interval=4 * epoch)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=64)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=2 * epoch)
)
log_processor = dict(by_epoch=False)
sync_bn = 'torch'
# Published numbers are those of this average.
custom_hooks = [
    dict(type='radocc_plugin.MEGVIIEMAHook', init_updates=10560),
    dict(type='radocc_plugin.HistoryScheduleHook', begin=2 * epoch),
]
