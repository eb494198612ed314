# Segment Anything. Weights: github.com/facebookresearch/segment-anything
_base_ = '../_base_/segments.py'

model = dict(
    segmenter=dict(
        type='radocc_plugin.SegmentAnything',
        model_type='vit_h',
        checkpoint='checkpoints/sam_vit_h_4b8939.pth',
        width=1600,
        min_area=100,
        connected_components=False,
        dtype='float32',
        # Everything of SamAutomaticMaskGenerator, at its defaults.
        generator=dict(
            points_per_side=32,
            points_per_batch=64,
            pred_iou_thresh=0.88,
            stability_score_thresh=0.95,
            stability_score_offset=1.0,
            box_nms_thresh=0.7,
            crop_n_layers=0,
            crop_nms_thresh=0.7,
            crop_overlap_ratio=512 / 1500,
            crop_n_points_downscale_factor=1,
            min_mask_region_area=0,
        ),
    )
)

test_dataloader = dict(batch_size=2)
