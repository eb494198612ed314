# SAM 2.1. Package and weights: github.com/facebookresearch/sam2
_base_ = '../_base_/segments.py'

model = dict(
    segmenter=dict(
        type='radocc_plugin.Sam2',
        model_config='configs/sam2.1/sam2.1_hiera_l.yaml',
        checkpoint='checkpoints/sam2.1_hiera_large.pt',
        width=1600,
        min_area=100,
        connected_components=False,
        dtype='bfloat16',
        # SAM2AutomaticMaskGenerator, at its defaults.
        generator=dict(
            points_per_side=32,
            points_per_batch=64,
            pred_iou_thresh=0.8,
            stability_score_thresh=0.95,
            stability_score_offset=1.0,
            mask_threshold=0.0,
            box_nms_thresh=0.7,
            crop_n_layers=0,
            crop_nms_thresh=0.7,
            crop_overlap_ratio=512 / 1500,
            crop_n_points_downscale_factor=1,
            min_mask_region_area=0,
            use_m2m=False,
            multimask_output=True,
        ),
    )
)

test_dataloader = dict(batch_size=2)
