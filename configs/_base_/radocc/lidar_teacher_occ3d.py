# RadOcc with the LiDAR-only teacher, as in the author's ablations.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-lidar_voxel005_8xb4-24e_occ3d.py',
        checkpoint='work_dirs/occ-teacher-lidar_voxel005_8xb4-24e_occ3d/epoch_24.pth',
    )
)
