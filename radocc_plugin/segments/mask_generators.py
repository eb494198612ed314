"""Segmenters that prompt a vision foundation model all over an image.

SAM, SAM 2, MobileSAM and their like have one interface: an automatic mask
generator whose ``generate(image)`` gives one record a mask. Adapting another
model is a subclass of :class:`MaskGenerator` with one method, ``build``.
"""

import hashlib
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor

from radocc_plugin.compat import import_segment_anything
from radocc_plugin.registry import MODELS
from radocc_plugin.segments.painting import paint_masks, shrink

DTYPES = dict(float32=torch.float32, float16=torch.float16, bfloat16=torch.bfloat16)


def decode_mask(segmentation) -> np.ndarray:
    """A mask (H, W) of what a generator's ``output_mode`` makes of it.

    That is the mask itself, or run lengths down the columns, the first of
    zeros: numbers (``uncompressed_rle``) or COCO's text (``coco_rle``).

    Raises:
        ImportError: If COCO's text is to be read without pycocotools.
    """
    if not isinstance(segmentation, dict):
        return np.asarray(segmentation)
    counts, (height, width) = segmentation['counts'], segmentation['size']
    if isinstance(counts, (str, bytes)):
        from pycocotools import mask

        if isinstance(counts, str):
            counts = counts.encode()
        return mask.decode(dict(segmentation, counts=counts)).astype(bool)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


class MaskGenerator(BaseModule):
    """What all mask generators share: precision, painting, settings.

    Args:
        checkpoint: File of the weights.
        generator: Keyword arguments of the library's automatic mask
            generator; what is left out has the library's default.
        width: Images wider than this are segmented at this width, and their
            maps keep that size; None keeps every image.
        min_area: Segments of fewer pixels (of the map) become 0.
        connected_components: Whether the parts of a mask that do not touch
            become segments of their own.
        dtype: 'float32', or 'float16' or 'bfloat16' for mixed precision. It
            belongs to the settings, for it changes masks a little.

    Raises:
        ValueError: If a field has another value, or the checkpoint is not
            there.
    """

    method = ''

    def __init__(
        self,
        checkpoint: str,
        *,
        generator: Optional[dict] = None,
        width: Optional[int] = None,
        min_area: int = 100,
        connected_components: bool = False,
        dtype: str = 'float32',
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f'dtype takes {", ".join(DTYPES)}, got {dtype!r}')
        if min_area < 1:
            raise ValueError(f'min_area takes a positive number, got {min_area}')
        if not Path(checkpoint).is_file():
            raise ValueError(
                f'checkpoint: {checkpoint} is not there; download the weights '
                'that the README of the model links to, or set '
                'model.segmenter.checkpoint'
            )
        self.checkpoint = checkpoint
        self.generator = dict(generator or {})
        self.width = width
        self.min_area = min_area
        self.connected_components = connected_components
        self.dtype = dtype
        # A submodule, so that the runner moves it; the generator is none.
        self.network, self._generator = self.build()

    def build(self) -> tuple:
        """The network (nn.Module) and the generator that uses it."""
        raise NotImplementedError

    @property
    def settings(self) -> dict:
        """Everything that decides the maps, for the manifest.

        Weights are named by their hash: where the file lies does not matter.
        """
        digest = hashlib.sha256()
        with open(self.checkpoint, 'rb') as file:
            for block in iter(lambda: file.read(1 << 24), b''):
                digest.update(block)
        return dict(
            method=self.method,
            checkpoint_sha256=digest.hexdigest()[:16],
            generator=self.generator,
            width=self.width,
            min_area=self.min_area,
            connected_components=self.connected_components,
            dtype=self.dtype,
        )

    @torch.no_grad()
    def forward(self, images: Sequence[np.ndarray], img_paths: Sequence[str]) -> List[np.ndarray]:
        """Segments a batch.

        Args:
            images: RGB, uint8, shape (H, W, 3) each, of any sizes.
            img_paths: Not used.

        Returns:
            Segment ids, shape (h, w), uint16, 0 = no segment.
        """
        images = [shrink(image, self.width) for image in images]
        device = next(self.network.parameters()).device
        with torch.autocast(device.type, dtype=DTYPES[self.dtype], enabled=self.dtype != 'float32'):
            return [
                paint_masks(
                    [decode_mask(r['segmentation']) for r in records],
                    image.shape[:2],
                    min_area=self.min_area,
                    connected_components=self.connected_components,
                )
                for image, records in zip(images, self.generate(images))
            ]

    def generate(self, images: Sequence[np.ndarray]):
        """Mask records of each image; one image at a time."""
        return (self._generator.generate(image) for image in images)


@MODELS.register_module()
class SegmentAnything(MaskGenerator):
    """SAM by the package ``segment-anything``, or a fork with its interface.

    The image encoder runs on the whole batch at once where its images have
    one size and ``generator.crop_n_layers`` is 0; prompts are batched by
    ``generator.points_per_batch``.

    Args:
        model_type: Key of the package's ``sam_model_registry``: 'vit_h',
            'vit_l' or 'vit_b'; 'vit_t' of MobileSAM.
        package: 'segment_anything', or a fork such as 'mobile_sam'.
        kwargs: See :class:`MaskGenerator`.

    Kirillov et al., Segment Anything, ICCV 2023.
    """

    method = 'segment_anything'

    def __init__(
        self, model_type: str, checkpoint: str, *, package: str = 'segment_anything', **kwargs
    ) -> None:
        self.model_type = model_type
        self.package = package
        super().__init__(checkpoint, **kwargs)

    def build(self) -> tuple:
        library = import_segment_anything(self.package)
        if self.model_type not in library.sam_model_registry:
            raise ValueError(
                f'model_type takes {", ".join(library.sam_model_registry)}, got {self.model_type!r}'
            )
        builder = library.sam_model_registry[self.model_type]
        network = builder(checkpoint=self.checkpoint).eval()
        # Masks are thresholded, measured and handed to numpy in float32.
        network.mask_decoder.register_forward_hook(
            lambda module, inputs, outputs: tuple(o.float() for o in outputs)
        )
        return network, library.SamAutomaticMaskGenerator(network, **self.generator)

    @property
    def settings(self) -> dict:
        return dict(super().settings, model_type=self.model_type, package=self.package)

    def generate(self, images: Sequence[np.ndarray]):
        one_size = len({image.shape for image in images}) == 1
        if len(images) < 2 or not one_size or self._generator.crop_n_layers:
            yield from super().generate(images)
            return
        predictor = self._generator.predictor
        resized = [predictor.transform.apply_image(i) for i in images]
        batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
        batch = self.network.preprocess(batch.to(predictor.device))
        features = self.network.image_encoder(batch)
        for image, feature in zip(images, features):
            with _Embedded(predictor, feature[None], resized[0].shape[:2]):
                yield self._generator.generate(image)


class _Embedded:
    """Within it, the predictor takes an image's embedding as computed."""

    def __init__(self, predictor, features: Tensor, input_size) -> None:
        self.predictor = predictor
        self.features = features
        self.input_size = input_size

    def __enter__(self) -> None:
        self.predictor.set_image = self.set_image

    def __exit__(self, *args) -> None:
        del self.predictor.set_image  # the class's own again

    def set_image(self, image: np.ndarray) -> None:
        self.predictor.reset_image()
        self.predictor.original_size = image.shape[:2]
        self.predictor.input_size = tuple(self.input_size)
        self.predictor.features = self.features
        self.predictor.is_image_set = True


@MODELS.register_module()
class Sam2(MaskGenerator):
    """SAM 2 by the package ``sam2``.

    Args:
        model_config: The package's name of the architecture, such as
            'configs/sam2.1/sam2.1_hiera_l.yaml'.
        kwargs: See :class:`MaskGenerator`.

    Raises:
        ImportError: If ``sam2`` is not installed.

    Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025.
    """

    method = 'sam2'

    def __init__(self, model_config: str, checkpoint: str, **kwargs) -> None:
        self.model_config = model_config
        super().__init__(checkpoint, **kwargs)

    def build(self) -> tuple:
        try:
            from sam2 import automatic_mask_generator, build_sam
        except ImportError as error:
            raise ImportError(
                'radocc_plugin.Sam2 needs the package sam2: pip install sam2'
            ) from error
        network = build_sam.build_sam2(self.model_config, self.checkpoint, device='cpu')
        return network, automatic_mask_generator.SAM2AutomaticMaskGenerator(
            network, **self.generator
        )

    @property
    def settings(self) -> dict:
        return dict(super().settings, model_config=self.model_config)
