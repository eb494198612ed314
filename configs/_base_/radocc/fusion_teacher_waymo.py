# RadOcc with the LiDAR-camera teacher on Occ3D-Waymo.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-fusion_r50-640x960_8xb4-24e_waymo.py',
        checkpoint='work_dirs/occ-teacher-fusion_r50-640x960_8xb4-24e_waymo/epoch_24.pth',
    ),
    renderer=dict(render_size=(128, 192)),
)
