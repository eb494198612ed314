"""Segment Anything itself, with random weights: none can be shipped."""

import sys
import types

import numpy as np
import pytest
import torch

from radocc_plugin import compat
from radocc_plugin.segments import (
    Sam2,
    SegmentAnything,
    paint_masks,
    read_label_map,
    read_manifest,
    segment_path,
)
from radocc_plugin.segments.mask_generators import decode_mask


def build_tiny_sam(checkpoint=None):
    """The fixture ``tiny_sam`` has registered it as SAM registers its own."""
    library = compat.import_segment_anything()
    return library.sam_model_registry['tiny'](checkpoint=checkpoint)


def test_maps_are_the_painted_masks_of_the_library(tiny_sam, image):
    library = compat.import_segment_anything()
    network = build_tiny_sam(tiny_sam['checkpoint']).eval()
    records = library.SamAutomaticMaskGenerator(network, **tiny_sam['generator']).generate(image)
    expected = paint_masks([r['segmentation'] for r in records], image.shape[:2], min_area=4)
    (labels,) = SegmentAnything(**tiny_sam)([image], ['x.jpg'])
    np.testing.assert_array_equal(labels, expected)
    assert labels.max() > 5


@pytest.mark.parametrize('crops', (0, 1))
def test_a_batch_gives_what_its_images_give_alone(tiny_sam, keyframe, crops):
    tiny_sam['generator'].update(crop_n_layers=crops)
    segmenter = SegmentAnything(**tiny_sam, width=160)
    images = keyframe[:2]
    together = segmenter(images, ['', ''])
    for image, labels in zip(images, together):
        (alone,) = segmenter([image], [''])
        assert (labels == alone).mean() > 0.999
        assert labels.shape == (90, 160) and labels.max() > 2 * (1 - crops)
    assert (together[0] != together[1]).any()


def test_images_of_different_sizes_make_one_batch(tiny_sam, image):
    tall = np.ascontiguousarray(image.transpose(1, 0, 2))
    maps = SegmentAnything(**tiny_sam)([image, tall], ['', ''])
    assert [m.shape for m in maps] == [(90, 160), (160, 90)]


@pytest.mark.slow
def test_full_size_images_of_the_keyframe(tiny_sam, keyframe):
    segmenter = SegmentAnything(**tiny_sam, connected_components=True)
    for labels in segmenter(keyframe[2:4], ['', '']):
        assert labels.shape == (900, 1600)
        area = np.bincount(labels.ravel())[1:]
        assert len(area) > 20 and area.min() >= 4


def test_mixed_precision_gives_almost_the_same_masks(tiny_sam, image):
    (full,) = SegmentAnything(**tiny_sam)([image], [''])
    segmenter = SegmentAnything(**tiny_sam, dtype='bfloat16')
    seen = []
    segmenter.network.image_encoder.blocks[0].mlp.lin1.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    (half,) = segmenter([image], [''])
    assert torch.bfloat16 in seen
    assert ((half > 0) == (full > 0)).mean() > 0.95


def test_settings_tell_weights_apart_but_not_their_place(tiny_sam, tmp_path):
    first = SegmentAnything(**tiny_sam).settings
    moved = tmp_path / 'moved.pth'
    content = open(tiny_sam['checkpoint'], 'rb').read()
    moved.write_bytes(content)
    assert SegmentAnything(**{**tiny_sam, 'checkpoint': str(moved)}).settings == first
    torch.save(build_tiny_sam().state_dict(), moved)
    other = SegmentAnything(**{**tiny_sam, 'checkpoint': str(moved)}).settings
    assert [k for k in first if first[k] != other[k]] == ['checkpoint_sha256']
    assert first['generator'] == tiny_sam['generator']


def test_the_job_runs_sam(tiny_sam, dataset, generate):
    options = [f'model.segmenter.generator.{k}={v}' for k, v in tiny_sam['generator'].items()]
    generate(
        'segments_sam-vit-b',
        '--checkpoint',
        tiny_sam['checkpoint'],
        '--batch-size',
        4,
        '--cfg-options',
        'model.segmenter.model_type=tiny',
        'model.segmenter.min_area=4',
        'test_dataloader.num_workers=0',
        *options,
    )
    settings = read_manifest(dataset / 'segments')['settings']
    assert settings['method'] == 'segment_anything'
    # the knobs that were not changed are in the manifest, too
    assert settings['generator']['stability_score_offset'] == 1.0
    labels = read_label_map(segment_path(dataset / 'segments', 'samples/CAM_FRONT/1.jpg'))
    assert labels.shape == (90, 160) and labels.max() > 5


def test_wrong_fields_are_named(tiny_sam):
    with pytest.raises(ValueError, match="dtype takes float32.*'int8'"):
        SegmentAnything(**tiny_sam, dtype='int8')
    with pytest.raises(ValueError, match='model_type takes .*vit_h.*vit_x'):
        SegmentAnything(**{**tiny_sam, 'model_type': 'vit_x'})
    with pytest.raises(ValueError, match='min_area takes a positive'):
        SegmentAnything(**{**tiny_sam, 'min_area': 0})
    with pytest.raises(ImportError, match='pip install mobile-sam'):
        SegmentAnything(**tiny_sam, package='mobile_sam')


def test_a_fork_of_the_package_is_used(tiny_sam, image, monkeypatch):
    """MobileSAM has the names of segment-anything."""
    library = compat.import_segment_anything()
    fork = types.ModuleType('mobile_sam')
    fork.sam_model_registry = {'vit_t': build_tiny_sam}
    fork.SamAutomaticMaskGenerator = library.SamAutomaticMaskGenerator
    monkeypatch.setitem(sys.modules, 'mobile_sam', fork)
    (labels,) = SegmentAnything(**{**tiny_sam, 'model_type': 'vit_t'}, package='mobile_sam')(
        [image], ['']
    )
    np.testing.assert_array_equal(labels, SegmentAnything(**tiny_sam)([image], [''])[0])


def test_sam2_is_built_by_its_package(tiny_sam, image, monkeypatch):
    """Its two entry points, with SAM in the place of the network."""
    library = compat.import_segment_anything()
    package = {
        name: types.ModuleType(name)
        for name in ('sam2', 'sam2.build_sam', 'sam2.automatic_mask_generator')
    }

    def build_sam2(config_file, ckpt_path=None, device='cuda', mode='eval'):
        assert (config_file, device, mode) == ('sam2.yaml', 'cpu', 'eval')
        return build_tiny_sam(ckpt_path).eval()

    package['sam2.build_sam'].build_sam2 = build_sam2
    package[
        'sam2.automatic_mask_generator'
    ].SAM2AutomaticMaskGenerator = library.SamAutomaticMaskGenerator
    arguments = {k: v for k, v in tiny_sam.items() if k != 'model_type'}
    if 'sam2' not in sys.modules:
        with pytest.raises(ImportError, match='pip install sam2'):
            Sam2('sam2.yaml', **arguments)
    for name, module in package.items():
        monkeypatch.setitem(sys.modules, name, module)
        setattr(package['sam2'], name.split('.')[-1], module)
    segmenter = Sam2('sam2.yaml', **arguments)
    np.testing.assert_array_equal(
        segmenter([image], [''])[0], SegmentAnything(**tiny_sam)([image], [''])[0]
    )
    assert segmenter.settings['model_config'] == 'sam2.yaml'


def _reference_nms(boxes, scores, groups, threshold):
    kept = []
    for i in scores.argsort(descending=True).tolist():
        for j in kept:
            low = torch.maximum(boxes[i, :2], boxes[j, :2])
            high = torch.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = (high - low).clamp_min(0).prod()
            sizes = [(boxes[k, 2:] - boxes[k, :2]).prod() for k in (i, j)]
            if groups[i] == groups[j] and shared > threshold * (sum(sizes) - shared):
                break
        else:
            kept.append(i)
    return kept


def test_stand_ins_do_what_torchvision_does():
    modules = compat._torchvision_stand_ins()
    boxes_module = modules['torchvision.ops.boxes']
    torch.manual_seed(0)
    boxes = torch.rand(60, 4) * 50
    boxes[:, 2:] += boxes[:, :2]
    scores, groups = torch.rand(60), torch.randint(0, 3, (60,))
    kept = boxes_module.batched_nms(boxes, scores, groups, 0.3)
    assert kept.tolist() == _reference_nms(boxes, scores, groups, 0.3)
    assert 3 < len(kept) < 60
    assert len(boxes_module.batched_nms(boxes[:0], scores[:0], groups[:0], 0.3)) == 0
    torch.testing.assert_close(boxes_module.box_area(boxes), (boxes[:, 2:] - boxes[:, :2]).prod(-1))
    functional = modules['torchvision.transforms.functional']
    picture = functional.to_pil_image(np.zeros((4, 6, 3), np.uint8))
    assert functional.resize(picture, (8, 3)).size == (3, 8)


@pytest.fixture
def without_sam(monkeypatch, tmp_path):
    """segment-anything not imported yet; a folder for a torchvision."""
    for name in list(sys.modules):
        if name.split('.')[0] in ('segment_anything', 'torchvision'):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / 'torchvision'
    for name in list(sys.modules):
        if name.split('.')[0] in ('segment_anything', 'torchvision'):
            del sys.modules[name]


def test_a_torchvision_that_loads_is_used(without_sam, monkeypatch):
    for name, functions in (
        ('ops/boxes', ('batched_nms', 'box_area')),
        ('transforms/functional', ('resize', 'to_pil_image')),
    ):
        path = without_sam / f'{name}.py'
        path.parent.mkdir(parents=True)
        (path.parent / '__init__.py').touch()
        path.write_text('\n'.join(f'{f} = "theirs"' for f in functions))
    (without_sam / '__init__.py').touch()

    def fail():
        raise AssertionError('stand-ins beside a torchvision that loads')

    monkeypatch.setattr(compat, '_torchvision_stand_ins', fail)
    library = compat.import_segment_anything()
    assert library.automatic_mask_generator.batched_nms == 'theirs'
    assert sys.modules['torchvision'].__file__.startswith(str(without_sam))


def test_a_torchvision_that_cannot_load_is_replaced_and_left(without_sam):
    without_sam.mkdir()
    (without_sam / '__init__.py').write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    library = compat.import_segment_anything()
    assert callable(library.automatic_mask_generator.batched_nms)
    with pytest.raises(RuntimeError, match='torchvision::nms'):
        __import__('torchvision')


def test_other_errors_of_the_package_come_through(without_sam):
    package = without_sam.with_name('broken_sam')
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("disk full")')
    with pytest.raises(RuntimeError, match='disk full'):
        compat.import_segment_anything('broken_sam')


@pytest.mark.parametrize('form', ('binary_mask', 'uncompressed_rle', 'coco_rle'))
def test_masks_of_every_output_mode_are_the_same(form):
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    written = mask
    if form == 'uncompressed_rle':
        column_by_column = np.concatenate([[False], mask.T.ravel()])
        borders = np.flatnonzero(np.diff(column_by_column))
        counts = np.diff([0, *borders, mask.size]).tolist()
        written = dict(size=[7, 5], counts=counts)
    elif form == 'coco_rle':
        coco = pytest.importorskip('pycocotools.mask')
        written = coco.encode(np.asfortranarray(mask, np.uint8))
        # SAM decodes the text for JSON
        written = dict(written, counts=written['counts'].decode())
    np.testing.assert_array_equal(decode_mask(written), mask)
