_base_ = 'segments_sam-vit-h.py'

model = dict(segmenter=dict(model_type='vit_b', checkpoint='checkpoints/sam_vit_b_01ec64.pth'))
