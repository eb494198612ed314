from radocc_plugin.visualization.errors import draw_errors, error_kinds
from radocc_plugin.visualization.frames import sample_of_frame, scene_indices
from radocc_plugin.visualization.hook import OccVisualizationHook
from radocc_plugin.visualization.images import (
    colorize_depth,
    colorize_semantics,
    draw_cameras,
    legend,
    save_picture,
)
from radocc_plugin.visualization.movies import write_movie
from radocc_plugin.visualization.volume import draw_occupancy
from radocc_plugin.visualization.pages import frame_page, rendering_page
from radocc_plugin.visualization.rendered import read_images, rendered_maps
from radocc_plugin.visualization.sheet import draw_sheet

__all__ = [
    'OccVisualizationHook',
    'colorize_depth',
    'colorize_semantics',
    'draw_cameras',
    'draw_errors',
    'draw_occupancy',
    'draw_sheet',
    'error_kinds',
    'frame_page',
    'legend',
    'read_images',
    'rendered_maps',
    'rendering_page',
    'sample_of_frame',
    'save_picture',
    'scene_indices',
    'write_movie',
]
