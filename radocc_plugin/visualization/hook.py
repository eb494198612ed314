"""Pictures while a test runs."""

from pathlib import Path
from typing import Optional, Sequence, Tuple

from mmengine.hooks import Hook

from radocc_plugin.registry import HOOKS
from radocc_plugin.label_space import label_space_of
from radocc_plugin.visualization.images import save_picture
from radocc_plugin.visualization.sheet import default_renderer, draw_sheet


@HOOKS.register_module()
class OccVisualizationHook(Hook):
    """Draws a sheet of every so many samples of a test.

    A sheet is ``<out_dir>/<scene>/<token>.png``, see ``draw_sheet``. Any
    model does whose samples have ``pred_occ`` and the ``label_space`` of the
    dataset; without labels, the sheets have no ground truth.

    Args:
        out_dir: Folder of the sheets.
        interval: One of so many samples is drawn, on each rank; samples are
            counted, not batches.
        mask: Voxels that are judged, see ``LabelSpace.mask``.
        suffix: Format: png or jpg.
        render_size: Height and width of the rendered maps.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    priority = 'LOW'

    def __init__(
        self,
        out_dir: str,
        interval: int = 1,
        mask: Optional[str] = None,
        suffix: str = 'png',
        render_size: Tuple[int, int] = (90, 160),
    ) -> None:
        if interval < 1:
            raise ValueError(
                f'OccVisualizationHook.interval takes a positive number, got {interval}'
            )
        self.out_dir = Path(out_dir)
        self.interval = interval
        self.mask = mask
        self.suffix = suffix
        self.render_size = tuple(render_size)
        self._seen = 0

    def before_test_epoch(self, runner) -> None:
        """Counts from the first sample again."""
        self._seen = 0

    def after_test_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: Optional[Sequence] = None
    ) -> None:
        """Draws the samples of a batch whose turn it is."""
        for sample in outputs or ():
            if self._seen % self.interval == 0:
                space = label_space_of(sample, 'OccVisualizationHook')
                folder = self.out_dir / str(sample.get('scene_name', ''))
                sheet = draw_sheet(
                    sample,
                    renderer=default_renderer(space.point_cloud_range, self.render_size),
                    mask=self.mask,
                )
                save_picture(folder / f'{sample.get("token", self._seen)}.{self.suffix}', sheet)
            self._seen += 1
