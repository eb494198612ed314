# RadOcc with the LiDAR-camera teacher on Occ3D-nuScenes.
radocc = dict(
    teacher=dict(
        model='projects/OccTeacher/configs/'
        'occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d.py',
        checkpoint='work_dirs/'
        'occ-teacher-fusion_r50-256x704_8xb4-24e_occ3d/epoch_24.pth'),
    renderer=dict(
        type='radocc_plugin.VolumeRenderer',
        point_cloud_range=(-40.0, -40.0, -1.0, 40.0, 40.0, 5.4),
        render_size=(225, 400),
        max_rays=80000),
    # The divergence of a ray sums over some eighty voxels, the cross entropy
    # is a mean over voxels: with weights of 1 a student from scratch does not
    # learn its labels.
    losses=dict(
        depth=dict(
            type='radocc_plugin.RenderedDepthConsistency', loss_weight=0.05),
        semantics=dict(
            type='radocc_plugin.RenderedSemanticConsistency',
            loss_weight=0.2,
            kl_weight=1.0)))
