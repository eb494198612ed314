from radocc_plugin.segments.controls import RandomSegments, SyntheticInstances
from radocc_plugin.segment_maps import (
    ensure_manifest,
    is_complete,
    read_label_map,
    read_manifest,
    segment_path,
    settings_hash,
    write_label_map,
)
from radocc_plugin.segments.mask_generators import MaskGenerator, Sam2, SegmentAnything
from radocc_plugin.segments.overlay import overlay
from radocc_plugin.segments.painting import paint_masks, renumber, shrink, split_components
from radocc_plugin.segments.statistics import map_statistics
from radocc_plugin.segments.superpixels import Felzenszwalb, Slic, Superpixels

__all__ = [
    'Felzenszwalb',
    'MaskGenerator',
    'RandomSegments',
    'Sam2',
    'SegmentAnything',
    'Slic',
    'Superpixels',
    'SyntheticInstances',
    'ensure_manifest',
    'is_complete',
    'map_statistics',
    'overlay',
    'paint_masks',
    'read_label_map',
    'read_manifest',
    'renumber',
    'segment_path',
    'settings_hash',
    'shrink',
    'split_components',
    'write_label_map',
]
