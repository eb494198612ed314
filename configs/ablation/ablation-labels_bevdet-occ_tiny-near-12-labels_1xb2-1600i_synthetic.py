# The labels as the teacher, on labelled frames only: what no teacher can beat there.
_base_ = '../radocc/radocc_bevdet-occ_tiny-near-12-labels_1xb2-1600i_synthetic.py'
model = dict(teacher=dict(_delete_=True, labels=dict(num_classes=18)))
train_dataloader = dict(sampler=dict(unlabelled=0))
