# The near field of the synthetic world for models that look back.
_base_ = './synthetic_queue.py'
point_cloud_range = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)
train_dataloader = dict(dataset=dict(point_cloud_range=point_cloud_range))
val_dataloader = dict(dataset=dict(point_cloud_range=point_cloud_range))
test_dataloader = val_dataloader
