# As published: CenterPoint's head assists the training, six tasks on 180 x 180
# cells. Needs mmdet3d; predictions do not.
_base_ = './daocc_r50-256x704_8xb4-6e_occ3d.py'
model = dict(
    detection_weight=0.01,
    detection_head=dict(
        type='mmdet3d.CenterHead',
        in_channels=512,
        tasks=[
            dict(num_class=1, class_names=['car']),
            dict(num_class=2, class_names=['truck', 'construction_vehicle']),
            dict(num_class=2, class_names=['bus', 'trailer']),
            dict(num_class=1, class_names=['barrier']),
            dict(num_class=2, class_names=['motorcycle', 'bicycle']),
            dict(num_class=2, class_names=['pedestrian', 'traffic_cone']),
        ],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=64,
        bbox_coder=dict(
            type='mmdet3d.CenterPointBBoxCoder',
            pc_range=(-54.0, -54.0),
            out_size_factor=8,
            voxel_size=(0.075, 0.075),
            code_size=9,
        ),
        separate_head=dict(type='mmdet3d.SeparateHead', init_bias=-2.19, final_kernel=3),
        loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
        loss_bbox=dict(type='mmdet.L1Loss', reduction='mean', loss_weight=0.25),
        norm_bbox=True,
        train_cfg=dict(
            point_cloud_range=(-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
            grid_size=(1440, 1440, 40),
            voxel_size=(0.075, 0.075, 0.2),
            out_size_factor=8,
            dense_reg=1,
            gaussian_overlap=0.1,
            max_objs=500,
            min_radius=2,
            code_weights=(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2),
        ),
    ),
)
# Boxes are loaded behind the labels.
train_pipeline = list(_base_.train_pipeline)
train_pipeline.insert(-2, dict(type='radocc_plugin.LoadDetectionBoxes'))
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
