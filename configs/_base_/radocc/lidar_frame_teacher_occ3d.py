# RadOcc with the LiDAR-only teacher in the ego frame of the LiDAR sweep.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/'
        'occ-teacher-lidar_voxel005-lidar-frame_8xb4-24e_occ3d.py',
        checkpoint='work_dirs/occ-teacher-lidar_voxel005-lidar-frame_8xb4-24e_occ3d/epoch_24.pth',
    )
)
