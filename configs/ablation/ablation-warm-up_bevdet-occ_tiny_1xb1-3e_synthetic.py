_base_ = ['../radocc/radocc_bevdet-occ_tiny_1xb1-3e_synthetic.py', '../_base_/radocc/warm_up.py']
model = dict(schedules=_base_.radocc_warm_up)
