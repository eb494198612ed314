# RadOcc with DAOcc, whose weights are published: nobody trains a teacher.
# Its images, sweeps and cameras are those of its own test pipeline, made
# beside the student's from the same files.
_base_ = './fusion_teacher_occ3d.py'
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
        dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(256, 704)),
        dict(
            type='radocc_plugin.LoadLidarSweeps',
            num_sweeps=9,
            point_cloud_range=(-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
        ),
        dict(type='radocc_plugin.PackOccInputs'),
    ],
)
radocc = dict(
    teacher=dict(
        model='projects/DAOcc/configs/daocc_r50-256x704_8xb4-6e_occ3d.py',
        checkpoint='checkpoints/daocc_occ3d_nus_w_mask.pth',
    )
)
