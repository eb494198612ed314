"""The head of BEVFormer-Occ."""

from typing import Dict, Optional, Sequence, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from radocc_plugin.models.bevdet.occ_head import occ_loss
from radocc_plugin.models.bevformer.encoder import PreviousBEV
from radocc_plugin.occ3d import POINT_CLOUD_RANGE
from radocc_plugin.registry import MODELS
from radocc_plugin.structures import check_use_mask


@MODELS.register_module()
class BEVFormerOccHead(BaseModule):
    """Owns the BEV queries and the loss; the transformer does the rest.

    Called with a BEV map it gives logits; ``encode`` makes such maps.

    Args:
        bev_h: Rows of the BEV grid (y).
        bev_w: Columns of the BEV grid (x).
        transformer: Config of the transformer.
        positional_encoding: Config of mmdet's ``LearnedPositionalEncoding``.
        point_cloud_range: Lower and upper bounds, metres.
        use_mask: Which voxels count, see ``structures.stack_mask``;
            published weights were trained without.
        class_weight: Weight of each class in the loss; all one by default.

    CVPR2023-Occ @4781df9.
    """

    def __init__(
        self,
        bev_h: int,
        bev_w: int,
        transformer: dict,
        positional_encoding: dict,
        point_cloud_range: Sequence[float] = POINT_CLOUD_RANGE,
        use_mask: Union[bool, str] = False,
        class_weight: Optional[Sequence[float]] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        self.bev_shape = (bev_h, bev_w)
        self.point_cloud_range = tuple(point_cloud_range)
        self.use_mask = check_use_mask(use_mask, type(self).__name__)
        self.transformer = MODELS.build(transformer)
        self.positional_encoding = MODELS.build(positional_encoding)
        self.bev_embedding = nn.Embedding(bev_h * bev_w, self.transformer.embed_dims)
        self.register_buffer(
            'class_weight',
            None if class_weight is None else torch.tensor(class_weight),
            persistent=False,
        )

    @property
    def num_classes(self) -> int:
        """Classes of the logits."""
        return self.transformer.num_classes

    def encode(
        self, levels: Sequence[Tensor], previous: Optional[PreviousBEV] = None, **frame
    ) -> Tensor:
        """The BEV map (B, H * W, C) of a frame.

        Args:
            levels: Image features, each (B, N, C, h, w).
            previous: BEV maps of the frames before.
            **frame: ``ego2img``, ``image_shape``, ``can_bus`` and ``bda_mat``
                of ``TransformerOcc``.
        """
        query = self.bev_embedding.weight
        position = self.positional_encoding(query.new_zeros(1, *self.bev_shape))
        return self.transformer(
            levels,
            query,
            position[0].flatten(1).transpose(0, 1),
            bev_shape=self.bev_shape,
            point_cloud_range=self.point_cloud_range,
            previous=previous,
            **frame,
        )

    def forward(self, bev: Tensor) -> Tensor:
        """Logits (B, X, Y, Z, classes) of a BEV map (B, H * W, C)."""
        return self.transformer.decode(bev, self.bev_shape)

    def loss(self, logits: Tensor, data_samples: Sequence) -> Dict[str, Tensor]:
        """See ``occ_loss``."""
        return occ_loss(logits, data_samples, self.use_mask, self.class_weight)
