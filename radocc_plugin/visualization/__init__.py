from radocc_plugin.visualization.images import (colorize_depth,
                                                colorize_semantics,
                                                draw_cameras, legend)
from radocc_plugin.visualization.occupancy import draw_occupancy
from radocc_plugin.visualization.pages import (frame_page, rendering_page,
                                               save_picture)
from radocc_plugin.visualization.rendered import read_images, rendered_maps

__all__ = [
    'colorize_depth', 'colorize_semantics', 'draw_cameras', 'draw_occupancy',
    'frame_page', 'legend', 'read_images', 'rendered_maps', 'rendering_page',
    'save_picture'
]
