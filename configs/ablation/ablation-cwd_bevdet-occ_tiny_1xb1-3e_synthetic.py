_base_ = ['../radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py', '../_base_/radocc/alignments.py']
model = dict(losses=dict(_delete_=True, **_base_.alignments.cwd))
