"""mmdet's image backbones with the early feature that stereo compares.

Parameters are mmdet's. The forward pass returns the stereo feature, at a
quarter of the image, before the levels of ``out_indices``;
``stereo_feature`` computes it alone.
"""

from typing import List, Tuple

from mmdet.models.backbones import ResNet, SwinTransformer
from torch import Tensor

from radocc_plugin.registry import MODELS


@MODELS.register_module()
class StereoResNet(ResNet):
    """``mmdet.ResNet`` whose first level is the stereo feature.

    Args:
        out_indices: Levels to return; starts with 0, as published.
        **kwargs: Arguments of ``mmdet.ResNet``.

    Raises:
        ValueError: If ``out_indices`` does not start with 0.
    """

    def __init__(self, *args, out_indices: Tuple[int, ...] = (0, 2, 3), **kwargs) -> None:
        if out_indices[0] != 0:
            raise ValueError(f'out_indices starts with 0, the stereo feature; got {out_indices}')
        super().__init__(*args, out_indices=out_indices, **kwargs)

    def stereo_feature(self, images: Tensor) -> Tensor:
        """The first level alone, shape (M, C, H / 4, W / 4)."""
        x = self.stem(images) if self.deep_stem else self.relu(self.norm1(self.conv1(images)))
        return self.layer1(self.maxpool(x))


@MODELS.register_module()
class StereoSwinTransformer(SwinTransformer):
    """``mmdet.SwinTransformer`` that also returns its first stage.

    The stereo feature is the first stage's output before patches are merged
    and without a norm.
    """

    def stereo_feature(self, images: Tensor) -> Tensor:
        """The first stage alone, shape (M, C, H / 4, W / 4)."""
        tokens, shape = self._embed(images)
        _, _, tokens, shape = self.stages[0](tokens, shape)
        return _to_map(tokens, shape)

    def forward(self, images: Tensor) -> List[Tensor]:
        """The stereo feature, then the levels of ``out_indices``."""
        tokens, shape = self._embed(images)
        outputs = []
        for index, stage in enumerate(self.stages):
            tokens, shape, out, out_shape = stage(tokens, shape)
            if index == 0:
                outputs.append(_to_map(out, out_shape))
            if index in self.out_indices:
                norm = getattr(self, f'norm{index}')
                outputs.append(_to_map(norm(out), out_shape))
        return outputs

    def _embed(self, images: Tensor) -> Tuple[Tensor, Tuple[int, int]]:
        tokens, shape = self.patch_embed(images)
        if self.use_abs_pos_embed:
            tokens = tokens + self.absolute_pos_embed
        return self.drop_after_pos(tokens), shape


def _to_map(tokens: Tensor, shape: Tuple[int, int]) -> Tensor:
    """Tokens (M, H * W, C) as a map (M, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, shape).contiguous()
