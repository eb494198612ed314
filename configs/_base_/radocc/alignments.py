# What a row of the ablation compares; the weights of RDC and RSC are those
# of paper.py, the others their sources'.
rdc = dict(type='radocc_plugin.RenderedDepthConsistency', loss_weight=0.05)
rsc = dict(type='radocc_plugin.RenderedSemanticConsistency', loss_weight=0.2, kl_weight=1.0)
alignments = dict(
    rdc=dict(depth=rdc),
    rsc=dict(semantics=rsc),
    rsc_affinity=dict(semantics=dict(rsc, kl_weight=0.0)),
    rsc_kl=dict(semantics=dict(rsc, affinity_weight=0.0)),
    author_rdc=dict(
        depth=dict(
            type='radocc_plugin.RenderedDepthDoubleSoftmax', loss_weight=100.0, temperature=10.0
        )
    ),
    depth_map=dict(depth=dict(type='radocc_plugin.RenderedDepthMapAlignment', loss_weight=0.1)),
    logits_kd=dict(logits=dict(type='radocc_plugin.LogitsKD', loss_weight=1.0)),
    feature=dict(
        feature=dict(
            type='radocc_plugin.FeatureAlignment',
            student_channels=16,
            teacher_channels=16,
            feature='voxel',
            loss_weight=1.0,
        )
    ),
    cwd=dict(
        channels=dict(
            type='radocc_plugin.ChannelWiseDistillation', loss_weight=1.0, temperature=4.0
        )
    ),
)
# The volume behind the 3D encoder, of student and teacher alike.
voxel_tap = dict(voxel=dict(module='img_bev_encoder_neck', layout='b c z y x'))
