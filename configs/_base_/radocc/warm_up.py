# Weights grow from 0 to those of the config over the first epoch, for a
# student from scratch whose first volumes are noise.
radocc_warm_up = dict(
    depth=dict(ramp=1, by_epoch=True, shape='cosine'),
    semantics=dict(ramp=1, by_epoch=True, shape='cosine'),
)
