# The tiny model on the near field: 50 x 50 x 8 cells, 24 depth bins.
_base_ = './fbocc_tiny.py'
model = dict(grid_config=dict(x=(-20, 20, 0.8), y=(-20, 20, 0.8), depth=(1.0, 25.0, 1.0)))
