# RadOcc with the tiny LiDAR-camera teacher of the near field.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-fusion_tiny-near_1xb1-1200i_synthetic.py',
        checkpoint='work_dirs/occ-teacher-fusion_tiny-near_1xb1-1200i_synthetic/iter_1200.pth',
    ),
    renderer=dict(
        point_cloud_range=(-20.0, -20.0, -1.0, 20.0, 20.0, 5.4),
        render_size=(56, 100),
        max_rays=12000,
    ),
)
