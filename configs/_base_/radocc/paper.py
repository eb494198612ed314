# The form of the paper: RDC and RSC on rendered rays. To take it:
#   radocc = dict(renderer=_base_.paper.renderer,
#                 losses=dict(_delete_=True, **_base_.paper.losses))
# Weights are ours, the paper's are not published. The divergence of a ray
# sums over some eighty voxels, the cross entropy is a mean over voxels: with
# weights of 1 a student from scratch does not learn its labels.
paper = dict(
    renderer=dict(render_size=(225, 400), max_rays=80000),
    losses=dict(
        depth=dict(type='radocc_plugin.RenderedDepthConsistency', loss_weight=0.05),
        semantics=dict(
            type='radocc_plugin.RenderedSemanticConsistency', loss_weight=0.2, kl_weight=1.0
        ),
    ),
)
