# 1600 steps of one frame from scratch, in minutes on one CPU core.
_base_ = ['./tiny.py', '../default_runtime.py']
max_iters = 1600
param_scheduler = [dict(type='OneCycleLR', eta_max=4e-3, total_steps=max_iters, by_epoch=False)]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=400), logger=dict(interval=20))
log_processor = dict(by_epoch=False)
