# RadOcc with the LiDAR-camera teacher on SurroundOcc-nuScenes.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-fusion_r50-256x704_8xb4-24e_surroundocc.py',
        checkpoint='work_dirs/occ-teacher-fusion_r50-256x704_8xb4-24e_surroundocc/epoch_24.pth',
    ),
    renderer=dict(point_cloud_range=(-50.0, -50.0, -5.0, 50.0, 50.0, 3.0)),
)
