# RadOcc with the LiDAR-camera teacher on Occ3D-nuScenes.
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d.py',
        checkpoint='work_dirs/occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d/epoch_24.pth',
    ),
    # A voxel at 40 m is two and a half pixels wide; a third of the pixels of
    # a batch of four is drawn in each step.
    renderer=dict(
        type='radocc_plugin.VolumeRenderer',
        point_cloud_range=(-40.0, -40.0, -1.0, 40.0, 40.0, 5.4),
        render_size=(112, 200),
        max_rays=200000,
    ),
    # RDC and RSC in one, voxel by voxel: docs/results.md compares it with
    # the paper's form (paper.py).
    losses=dict(
        voxel=dict(
            type='radocc_plugin.RenderedVoxelConsistency',
            loss_weight=1.0,
            labelled_factor=0.5,
            cap=1.0,
        )
    ),
)
