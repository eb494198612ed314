"""Making segment maps as a test run of MMEngine's Runner.

The model writes the maps, the metric adds up their statistics; the launcher
shards the images over processes as in any test.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import List, Optional, Sequence

import numpy as np
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import nn

from radocc_plugin.registry import METRICS, MODEL_WRAPPERS, MODELS
from radocc_plugin.segment_maps import ensure_manifest, segment_path, write_label_map
from radocc_plugin.segments.statistics import map_statistics


@MODELS.register_module()
class SegmentWriter(BaseModel):
    """Segments images and writes their maps.

    Building it claims the folder: it writes the manifest, or checks that the
    maps there have the same settings.

    Args:
        segmenter: Config of a segmenter. It is a callable
            ``(image, img_path) -> map``, run in threads, or a torch module
            ``(images, img_paths) -> maps``; both have ``settings``.
        segments_root: Folder of the maps.
        threads: Threads of a callable; default this process's share of the
            CPUs.

    Raises:
        ValueError: If the folder holds maps of other settings.
    """

    def __init__(self, segmenter: dict, segments_root: str, threads: Optional[int] = None) -> None:
        super().__init__()
        self.segmenter = MODELS.build(segmenter)
        self.segments_root = segments_root
        if threads is None:
            local = int(os.environ.get('LOCAL_WORLD_SIZE', get_world_size()))
            threads = max(1, (os.cpu_count() or 1) // local)
        self.threads = threads
        if is_main_process():
            settings = self.segmenter.settings
            print_log(f'settings {settings}', logger='current')
            ensure_manifest(segments_root, settings)
        barrier()

    def forward(
        self, inputs: Sequence[np.ndarray], img_path: Sequence[str], mode: str = 'predict'
    ) -> List[dict]:
        """Writes the map of each image.

        Args:
            inputs: RGB, uint8, shape (H, W, 3) each.
            img_path: Path of each relative to the data root.
            mode: 'predict'; there is nothing to train.

        Returns:
            For each image ``img_path``, ``seconds``, ``bytes`` and
            :func:`map_statistics` of its map.
        """
        if mode != 'predict':
            raise ValueError(f'mode takes predict, got {mode}')
        start = time.perf_counter()
        maps = self._segment(inputs, img_path)
        seconds = (time.perf_counter() - start) / len(maps)
        results = []
        for labels, path in zip(maps, img_path):
            target = segment_path(self.segments_root, path)
            write_label_map(target, labels)
            results.append(
                dict(
                    map_statistics(labels),
                    img_path=path,
                    seconds=seconds,
                    bytes=target.stat().st_size,
                )
            )
        return results

    def _segment(self, images, img_paths) -> List[np.ndarray]:
        if isinstance(self.segmenter, nn.Module):
            return self.segmenter(images, img_paths)
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(self.segmenter, images, img_paths))


@MODEL_WRAPPERS.register_module()
class Unwrapped:
    """As ``model_wrapper_cfg``: the model itself instead of DDP around it.

    Inference exchanges no gradients, and DDP refuses a segmenter that has no
    parameters.
    """

    def __new__(cls, module: nn.Module) -> nn.Module:
        return module


@METRICS.register_module()
class SegmentStatistics(BaseMetric):
    """Means over the maps that this run wrote.

    Keys: ``segments/count`` (with ``_min`` and ``_max``), ``covered`` (share
    of pixels with a segment), ``kib`` a map, ``seconds`` an image and process.
    """

    default_prefix = 'segments'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict:
        if not results:
            return dict(images=0)
        counts = [r['count'] for r in results]
        mean = {
            name: float(np.mean([r[name] for r in results]))
            for name in ('count', 'covered', 'bytes', 'seconds')
        }
        return dict(
            images=len(results),
            count=mean['count'],
            count_min=min(counts),
            count_max=max(counts),
            covered=mean['covered'],
            kib=mean['bytes'] / 1024,
            seconds=mean['seconds'],
        )
