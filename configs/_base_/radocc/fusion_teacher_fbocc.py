# RadOcc with the LiDAR-camera teacher in the frames of FB-OCC.
_base_ = './fusion_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/FBOcc/configs/occ-teacher-fusion_r50-256x704-turned_8xb4-24e_occ3d.py',
        checkpoint='work_dirs/occ-teacher-fusion_r50-256x704-turned_8xb4-24e_occ3d/epoch_24.pth',
    )
)
