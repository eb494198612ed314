# DAOcc for students that learn all voxels and are evaluated by RayIoU.
_base_ = './daocc_teacher_occ3d.py'
radocc = dict(
    teacher=dict(
        model='projects/DAOcc/configs/daocc_r50-no-mask-256x704_8xb4-6e_occ3d.py',
        checkpoint='checkpoints/daocc_occ3d_nus_wo_mask.pth',
    )
)
