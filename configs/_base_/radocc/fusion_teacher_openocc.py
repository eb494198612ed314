# RadOcc with the LiDAR-camera teacher on OpenOcc v2.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-fusion_r50-256x704_8xb4-24e_openocc.py',
        checkpoint='work_dirs/occ-teacher-fusion_r50-256x704_8xb4-24e_openocc/epoch_24.pth',
    )
)
