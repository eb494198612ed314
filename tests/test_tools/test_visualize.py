"""tools/visualize.py, its samples, and test.py --show-dir."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from radocc_plugin import occ3d
from radocc_plugin.commands import visualize_predictions, visualize_samples
from radocc_plugin.datasets.info_file import save_infos
from radocc_plugin.evaluation import prediction_path, write_prediction
from radocc_plugin.visualization.pipeline_page import (
    describe_augmentation,
    draw_pipeline_page,
    segments_in_input,
)

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def visualize():
    return visualize_predictions


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """Two scenes; the frames of the first stand in the wrong order."""
    root = tmp_path_factory.mktemp('data')
    images = {}
    looks_ahead = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    for number, name in enumerate(occ3d.CAMERAS):
        path = f'{name}.jpg'
        Image.new('RGB', (160, 90), (250 - 40 * number, 90, 0)).save(root / path)
        images[name] = dict(
            img_path=path,
            cam2img=np.array([[80.0, 0, 80], [0, 80, 45], [0, 0, 1]]),
            cam2ego=looks_ahead,
            ego2global=np.eye(4),
        )
    np.array([[10, 0, 0, 9, 1], [5, 5, 0, 9, 1]], np.float32).tofile(root / 'points.bin')
    infos = []
    for index, (scene, time) in enumerate([('a', 1.5), ('a', 1.0), ('b', 7.0)]):
        token = f't{index}'
        labels = np.full(occ3d.GRID_SHAPE, occ3d.FREE, np.uint8)
        labels[90:130, 80:120, 1] = 11
        path = f'gts/scene-{scene}/{token}/labels.npz'
        (root / path).parent.mkdir(parents=True)
        mask = np.ones(labels.shape, np.uint8)
        np.savez_compressed(root / path, semantics=labels, mask_camera=mask, mask_lidar=mask)
        labels[120:, :, 1] = 4
        write_prediction(
            prediction_path(root / 'dump', f'scene-{scene}', token), torch.from_numpy(labels)
        )
        infos.append(
            dict(
                token=token,
                sample_idx=index,
                timestamp=time,
                prev='',
                next='',
                scene_name=f'scene-{scene}',
                scene_token=scene,
                ego2global=np.eye(4),
                images=images,
                lidar_sweeps=[],
                lidar_points=dict(lidar_path='points.bin', lidar2ego=np.eye(4)),
                occ_path=path,
            )
        )
    save_infos(dict(metainfo={}, data_list=infos), str(root / 'radocc_infos_val.pkl'))
    return root


@pytest.fixture
def arguments(data_root):
    return [
        '--dump',
        str(data_root / 'dump'),
        '--data-root',
        str(data_root),
        '--render-size',
        '5',
        '8',
        '--workers',
        '1',
    ]


def test_a_dump_gives_a_sheet_a_frame(visualize, arguments, tmp_path):
    visualize.main([*arguments, '--frames', '0', '2', '--out', str(tmp_path), '--format', 'jpg'])
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*.*')}
    assert files == {'scene-a/t0.jpg', 'scene-b/t2.jpg'}
    assert cv2.imread(str(tmp_path / 'scene-a/t0.jpg')).shape[1] == 1920


def test_a_scene_is_a_movie_in_the_order_of_time(visualize, arguments, tmp_path, monkeypatch):
    tokens = []
    monkeypatch.setattr(
        visualize, 'write_movie', lambda path, sheets, **options: tokens.extend(options.items())
    )
    monkeypatch.setattr(
        visualize, 'sample_of_frame', lambda frame, dump: tokens.append(frame['token'])
    )
    args = visualize.parse_args(
        [*arguments, '--scene', 'scene-a', '--out', str(tmp_path / 'x.mp4')]
    )
    total, samples = visualize.samples_of_dump(args)
    list(samples)
    assert total == 2 and tokens == ['t1', 't0']
    args.scene = 'b'  # a token does as well
    assert visualize.samples_of_dump(args)[0] == 1


def test_movie_file_of_a_scene(visualize, arguments, tmp_path):
    path = tmp_path / 'scene.gif'
    visualize.main([*arguments, '--scene', 'a', '--out', str(path), '--width', '480'])
    with Image.open(path) as movie:
        assert movie.n_frames == 2 and movie.width == 480


def test_unknown_scenes_and_frames_are_named(visualize, arguments, tmp_path):
    out = ['--out', str(tmp_path)]
    with pytest.raises(ValueError, match="scene-a, scene-b; got 'c'"):
        visualize.main([*arguments, *out, '--scene', 'c'])
    with pytest.raises(ValueError, match='--frames takes indices below 3'):
        visualize.main([*arguments, *out, '--frames', '3'])


@pytest.mark.parametrize(
    'wrong,message',
    [
        ([], 'required: --out'),
        (['--out', 'x.avi'], r'a file of .gif, .mp4, .rrd'),
        (['--out', 'x', '--frames', '0', '--scene', 'a'], '--frames and'),
    ],
)
def test_command_lines_that_make_no_sense(visualize, arguments, wrong, message, capsys):
    with pytest.raises(SystemExit):
        visualize.parse_args([*arguments, *wrong])
    assert message in capsys.readouterr().err


def test_recording_without_rerun_says_what_to_install(visualize, arguments, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    with pytest.raises(ImportError, match=r'extra \[viz\].*rerun-sdk'):
        visualize.main([*arguments, '--out', str(tmp_path / 'x.rrd')])
    assert not list(tmp_path.iterdir())


def test_recording_holds_cameras_voxels_and_points(visualize, arguments, tmp_path):
    rerun = pytest.importorskip('rerun', reason='the extra [viz] is not installed')
    path = tmp_path / 'scene.rrd'
    visualize.main([*arguments, '--scene', 'a', '--out', str(path)])
    table = (
        rerun.dataframe.load_recording(path).view(index='frame', contents='/**').select().read_all()
    )

    def lengths(entity, component):
        (name,) = (
            n for n in table.column_names if n.startswith(f'/world/{entity}:') and component in n
        )
        return [len(value) for value in table[name].to_pylist()]

    assert table['frame'].to_pylist() == [0, 1]
    assert lengths('ground_truth/driveable_surface', 'HalfSize') == [1600] * 2
    assert lengths('prediction/car', 'HalfSize') == [80 * 200] * 2
    assert lengths('errors/wrong_class', 'HalfSize') == [400] * 2
    assert lengths('lidar', 'Position') == [2, 2]
    for camera in occ3d.CAMERAS:
        assert lengths(camera, 'PinholeProjection') == [1, 1]
        assert lengths(camera, 'Translation') == [1, 1]
        assert lengths(camera, 'Blob') == [1, 1]


CONFIG = """
load = dict(type='radocc_plugin.LoadMultiViewImages')
train_dataloader = dict(dataset=dict(
    type='radocc_plugin.Occ3DNuScenesDataset',
    data_root={root!r},
    ann_file='radocc_infos_val.pkl',
    pipeline=[
        load,
        dict(type='radocc_plugin.AugmentMultiViewImages',
             input_size=(48, 80), flip_prob=0.5, rotate=(-5, 5)),
        dict(type='radocc_plugin.LoadLidarPoints'),
        dict(type='radocc_plugin.LoadOcc3D'),
        dict(type='radocc_plugin.AugmentBEV', rotate=(-30, 30)),
        dict(type='radocc_plugin.PointsToDepthMaps'),
        dict(type='radocc_plugin.PackOccInputs'),
    ]))
"""


def test_samples_are_drawn_as_pages(data_root, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=str(data_root)))
    visualize_samples.main([str(config), '--out', str(tmp_path / 'out'), '--number', '2'])
    names = sorted(p.name for p in (tmp_path / 'out').iterdir())
    assert names == ['00000_t0.png', '00002_t2.png']


def test_pages_show_adjacent_frames_and_segments():
    """Every part adds a row of images to the page."""
    from radocc_plugin.structures import OccDataSample

    sample = OccDataSample(
        metainfo=dict(
            ori_shape=(90, 160),
            timestamp=2.0,
            cam_names=occ3d.CAMERAS,
            label_space=occ3d.OCC3D_NUSCENES,
            img_aug_mat=np.stack([np.eye(4)] * 6),
        )
    )
    inputs = dict(img=torch.zeros(6, 3, 90, 160, dtype=torch.uint8))
    packed = dict(inputs=inputs, data_samples=sample)
    heights = [draw_pipeline_page(packed).shape[0]]
    sample.gt_depth = torch.rand(6, 90, 160)
    heights.append(draw_pipeline_page(packed).shape[0])
    sample.segments = torch.ones(6, 45, 80, dtype=torch.int32)
    heights.append(draw_pipeline_page(packed).shape[0])
    inputs['adjacent_img'] = inputs['img'][None].repeat(3, 1, 1, 1, 1)
    heights.append(draw_pipeline_page(packed).shape[0])
    row = heights[1] - heights[0]
    assert row > 100 and np.diff(heights).tolist() == [row, row, 3 * row]


def test_segments_move_with_their_image():
    """As the image itself, pixel by pixel, with a label a pixel."""
    from radocc_plugin.datasets.transforms.images import augment_image, image_augmentation_matrix

    rng = np.random.default_rng(0)
    blocks = rng.integers(1, 255, (9, 16)).astype(np.uint8)
    image = Image.fromarray(np.kron(blocks, np.ones((20, 20), np.uint8)))
    # half the size, cropped and mirrored
    draw = ((160, 90), (10, 20, 150, 90), True, 0.0)
    matrix = image_augmentation_matrix((180, 320), *draw)
    want = np.asarray(augment_image(image, *draw))
    got = segments_in_input(blocks.astype(np.int32), matrix, (180, 320), want.shape)
    # bicubic scaling mixes the pixels beside a border
    inner = np.ones(want.shape, bool)
    for axis in (0, 1):
        for step in (-3, 3):
            inner &= got == np.roll(got, step, axis)
    inner[:3] = inner[-3:] = False
    inner[:, :3] = inner[:, -3:] = False
    assert inner.sum() > 500 and (got == want)[inner].all()


@pytest.mark.parametrize(
    'flips,angle,words',
    [
        ((False, False), 0, 'ego frame: not mirrored, the car heads +0.0'),
        ((False, True), 0, 'ego frame: mirrored, the car heads +0.0'),
        ((True, False), 0, 'ego frame: mirrored, the car heads +180.0'),
        ((False, False), 20, 'not mirrored, the car heads +20.0'),
    ],
)
def test_augmentation_in_words(flips, angle, words):
    from radocc_plugin.datasets.transforms.bev import bda_matrix
    from radocc_plugin.structures import OccDataSample

    sample = OccDataSample(metainfo=dict(bda_mat=bda_matrix(angle, 1.0, *flips)))
    assert words in describe_augmentation(sample)


def test_show_dir_adds_the_hook(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tool = load('test')
    configs = []

    def from_cfg(config):
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.Runner, 'from_cfg', from_cfg)
    with pytest.raises(KeyboardInterrupt):
        tool.main(
            [
                'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py',
                'x.pth',
                '--show-dir',
                'pictures',
                '--show-interval',
                '5',
            ]
        )
    assert configs[0].custom_hooks[-1] == dict(
        type='radocc_plugin.OccVisualizationHook', out_dir='pictures', interval=5
    )


def test_renders_are_drawn_without_class_weights(visualize):
    """As the distiller renders them: weights make fog of free space."""

    class Weighted:
        occ_tap = dict(class_weight=[8.0, 2.0])

    class Plain:
        pass

    logits = torch.randn(2, 2, 2, 2)
    shift = torch.tensor([4.0, 1.0]).log()
    torch.testing.assert_close(
        visualize.without_class_weights(logits, Weighted(), 'a'), logits - shift
    )
    assert visualize.without_class_weights(logits, Plain(), 'b') is logits
