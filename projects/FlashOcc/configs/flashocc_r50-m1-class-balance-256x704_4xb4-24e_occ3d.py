# Classes weigh by their inverse logarithmic frequency: an option of FlashOCC's
# head that none of its released configs of M0 to M3 sets.
_base_ = './flashocc_r50-m1-256x704_4xb4-24e_occ3d.py'
model = dict(occ_head=dict(class_balance=True))
