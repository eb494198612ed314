from radocc_plugin.segments.label_map import (ensure_manifest, read_label_map,
                                              read_manifest, segment_path,
                                              settings_hash, write_label_map)
from radocc_plugin.segments.overlay import overlay
from radocc_plugin.segments.superpixels import (SEGMENTERS, Felzenszwalb, Slic,
                                                Superpixels)

__all__ = [
    'Felzenszwalb', 'SEGMENTERS', 'Slic', 'Superpixels', 'ensure_manifest',
    'overlay', 'read_label_map', 'read_manifest', 'segment_path',
    'settings_hash', 'write_label_map'
]
