# 0.5 m voxels in the LiDAR frame; all labelled voxels count.
_base_ = [
    './_base_/bevdet-occ_r50.py',
    '../../../configs/_base_/datasets/surroundocc_nuscenes.py',
    '../../../configs/_base_/schedules/bevdet_24e.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(
    img_view_transformer=dict(
        grid_config=dict(x=(-50, 50, 0.5), y=(-50, 50, 0.5), z=(-5, 3, 0.5), depth=(1.0, 60.0, 0.5))
    ),
    occ_head=dict(num_classes=17, use_mask=False),
)
