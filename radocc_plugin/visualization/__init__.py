from radocc_plugin.visualization.images import (colorize_depth,
                                                colorize_semantics,
                                                draw_cameras, legend)
from radocc_plugin.visualization.occupancy import draw_occupancy
from radocc_plugin.visualization.pages import (frame_page, rendering_page,
                                               save_picture)

__all__ = [
    'colorize_depth', 'colorize_semantics', 'draw_cameras', 'draw_occupancy',
    'frame_page', 'legend', 'rendering_page', 'save_picture'
]
