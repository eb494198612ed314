"""Images, info files and tools for the tests of segment maps."""

import importlib.util
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from radocc_plugin.compat import import_segment_anything
from radocc_plugin.datasets.info_file import save_infos

ROOT = Path(__file__).resolve().parents[2]
KEYFRAME = Path(os.environ.get('RADOCC_SHARED', ROOT.parent / 'shared')) / 'data/nuscenes_frame'


@pytest.fixture
def image():
    """Two grey halves and a red square, with a little noise."""
    picture = np.full((90, 160, 3), 60, np.uint8)
    picture[:, 80:] = 200
    picture[30:60, 20:50] = (220, 30, 30)
    noise = np.random.default_rng(0).integers(-4, 5, picture.shape)
    return (picture + noise).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path, image):
    """An info file of two frames with two cameras, and its images."""
    infos = []
    for frame in range(2):
        cameras = {}
        for camera in ('CAM_FRONT', 'CAM_BACK'):
            path = f'samples/{camera}/{frame}.jpg'
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / path), image)
            cameras[camera] = dict(img_path=path)
        infos.append(dict(images=cameras))
    save_infos(dict(metainfo={}, data_list=infos), str(tmp_path / 'infos.pkl'))
    return tmp_path


@pytest.fixture
def keyframe():
    """The six images of the real keyframe, RGB."""
    if not KEYFRAME.is_dir():
        pytest.skip(f'{KEYFRAME} is absent')
    return [
        cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        for path in sorted(KEYFRAME.glob('*__CAM_*.jpg'))
    ]


def _load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def generate(dataset):
    """Runs tools/generate_segments.py in this process."""
    main = _load_tool('generate_segments').main

    def run(*arguments, out='segments'):
        main(
            [
                *map(str, arguments),
                '--ann-file',
                str(dataset / 'infos.pkl'),
                '--data-root',
                str(dataset),
                '--out',
                str(dataset / out),
            ]
        )

    return run


def build_tiny_sam(checkpoint=None):
    """A random SAM of the library's own classes, 256 pixels wide."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    network = Sam(
        image_encoder=ImageEncoderViT(
            img_size=256,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=32,
            use_rel_pos=True,
            window_size=4,
            global_attn_indexes=(1,),
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=32,
            image_embedding_size=(16, 16),
            input_image_size=(256, 256),
            mask_in_chans=4,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    )
    if checkpoint is not None:
        network.load_state_dict(torch.load(checkpoint))
    return network


@pytest.fixture
def tiny_sam(tmp_path, monkeypatch):
    """Arguments of a SegmentAnything with saved random weights.

    Random weights predict any quality, so no mask is filtered by it.
    """
    library = import_segment_anything()
    monkeypatch.setitem(library.sam_model_registry, 'tiny', build_tiny_sam)
    torch.manual_seed(2)
    network = build_tiny_sam()
    # Larger logits: masks of random weights would cover all or nothing.
    torch.nn.init.normal_(network.mask_decoder.output_upscaling[3].weight)
    path = tmp_path / 'tiny_sam.pth'
    torch.save(network.state_dict(), path)
    return dict(
        model_type='tiny',
        checkpoint=str(path),
        min_area=4,
        generator=dict(
            points_per_side=4,
            pred_iou_thresh=-100.0,
            stability_score_thresh=0.0,
            box_nms_thresh=1.0,
        ),
    )
