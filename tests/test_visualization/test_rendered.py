import numpy as np
import pytest
import torch

from radocc_plugin.geometry import Cameras
from radocc_plugin.rendering import VolumeRenderer
from radocc_plugin.visualization import rendered_maps
from radocc_plugin.visualization.rendered import SKY


def render_of_a_wall(max_rays):
    """A wall of class 1 at x = 2..4 m that fills the lower half of a view."""
    cam2ego = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0.05], [0, -1, 0, 0.7], [0, 0, 0, 1]])
    cam2img = torch.tensor([[20.0, 0, 16], [0, 20, 9], [0, 0, 1]])
    cameras = Cameras(cam2img[None, None], cam2ego[None, None], torch.eye(4)[None], (18, 32))
    renderer = VolumeRenderer((-4, -4, -1, 4, 4, 2.2), (6, 10), max_rays=max_rays)
    labels = torch.full((1, 10, 10, 4), 3)
    labels[:, 7:9, :, :2] = 1
    geometry = renderer.trace(cameras, (10, 10, 4))
    return renderer.render_labels(labels, geometry, 4)


def test_wall_below_the_sky():
    depth, classes = rendered_maps(render_of_a_wall(None))
    assert depth.shape == classes.shape == (1, 6, 10)
    assert set(np.unique(classes[0, 4])) == {1}
    assert set(np.unique(classes[0, 0])) == {SKY}
    assert (depth[0, 0] == 0).all() and (depth[0, 4] > 1).all()


def test_missing_rays_are_named():
    with pytest.raises(ValueError, match='all rays'):
        rendered_maps(render_of_a_wall(20))
