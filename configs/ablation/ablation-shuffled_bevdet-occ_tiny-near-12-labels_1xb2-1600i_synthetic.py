# The teacher's light dealt out among the voxels at random: what its place is worth.
_base_ = '../radocc/radocc_bevdet-occ_tiny-near-12-labels_1xb2-1600i_synthetic.py'
model = dict(losses=dict(voxel=dict(light='shuffled')))
