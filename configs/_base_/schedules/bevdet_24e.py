# BEVDet-Occ and FlashOCC: constant learning rate after a warm-up, 8 x 4.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=200)]
train_cfg = dict(by_epoch=True, max_epochs=24, val_begin=20)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=32)
# Published numbers are those of this average.
custom_hooks = [dict(type='radocc_plugin.MEGVIIEMAHook', init_updates=10560)]
