# MobileSAM has SAM's interface. Package: github.com/ChaoningZhang/MobileSAM
_base_ = 'segments_sam-vit-h.py'

model = dict(
    segmenter=dict(package='mobile_sam', model_type='vit_t', checkpoint='checkpoints/mobile_sam.pt')
)
