"""What all metrics of occupancy share."""

from typing import Optional, Tuple

from mmengine.evaluator import BaseMetric

from radocc_plugin.label_space import LabelSpace


class LabelSpaceMetric(BaseMetric):
    """A metric that knows classes and grid from the dataset's metainfo.

    MMEngine's loops and ``Evaluator.dataset_meta`` set it; whoever calls a
    metric alone sets ``metric.dataset_meta``.
    """

    _known: Optional[Tuple[dict, LabelSpace]] = None

    @property
    def label_space(self) -> LabelSpace:
        """The label space of the evaluated dataset.

        Raises:
            ValueError: If the dataset's metainfo describes none.
        """
        if self._known is None or self._known[0] is not self.dataset_meta:
            space = LabelSpace.from_metainfo(
                self.dataset_meta, f'the dataset of {type(self).__name__}'
            )
            self._known = self.dataset_meta, space
        return self._known[1]
