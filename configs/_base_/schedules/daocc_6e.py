# DAOcc: cosine by epoch, mixed precision, 8 x 4. The published weights are the
# plain ones, without a moving average.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale=dict(growth_interval=2000),
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=35.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='CosineAnnealingLR', T_max=6, by_epoch=True, eta_min_ratio=1e-3),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=2)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=32)
