# RadOcc in the paper's form with the tiny LiDAR-camera teacher of the
# synthetic world.
_base_ = ['./fusion_teacher_occ3d.py', './paper.py']
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-fusion_tiny_1xb1-3e_synthetic.py',
        checkpoint='work_dirs/occ-teacher-fusion_tiny_1xb1-3e_synthetic/epoch_3.pth',
    ),
    renderer=dict(render_size=(28, 50), max_rays=3000),
    losses=dict(_delete_=True, **_base_.paper.losses),
)
