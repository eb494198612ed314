_base_ = 'segments_sam-vit-h.py'

model = dict(segmenter=dict(model_type='vit_l', checkpoint='checkpoints/sam_vit_l_0b3195.pth'))
