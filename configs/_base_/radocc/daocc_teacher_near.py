# RadOcc with the tiny DAOcc of the near field.
_base_ = './fusion_teacher_near.py'
teacher_inputs = dict(
    type='radocc_plugin.TeacherPipeline',
    cams=(
        'CAM_FRONT',
        'CAM_FRONT_RIGHT',
        'CAM_FRONT_LEFT',
        'CAM_BACK',
        'CAM_BACK_LEFT',
        'CAM_BACK_RIGHT',
    ),
    pipeline=[
        dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(96, 256)),
        dict(
            type='radocc_plugin.LoadLidarSweeps',
            num_sweeps=1,
            point_cloud_range=(-24.0, -24.0, -5.0, 24.0, 24.0, 3.0),
        ),
        dict(type='radocc_plugin.PackOccInputs'),
    ],
)
radocc = dict(
    teacher=dict(
        model='projects/DAOcc/configs/daocc_tiny-near_1xb1-1200i_synthetic.py',
        checkpoint='work_dirs/daocc_tiny-near_1xb1-1200i_synthetic/iter_1200.pth',
    )
)
