"""Generation as a job of MMEngine, run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from radocc_plugin.commands import visualize_segments
from radocc_plugin.registry import MODELS
from radocc_plugin.segments import Felzenszwalb, read_label_map, read_manifest, segment_path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / 'configs' / 'segments').glob('*.py'))
# runs of the same second have the same name
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')
# dataloader processes are slow to start for four images
QUICK = ('--cfg-options', 'test_dataloader.num_workers=0')


def test_writes_the_map_of_every_camera(dataset, image, generate, capsys):
    generate(*QUICK)
    maps = sorted((dataset / 'segments').rglob('*.png'))
    assert [str(m.relative_to(dataset / 'segments')) for m in maps] == [
        f'samples/{camera}/{frame}.png' for camera in ('CAM_BACK', 'CAM_FRONT') for frame in (0, 1)
    ]
    assert '4 maps: ' in capsys.readouterr().out
    settings = read_manifest(dataset / 'segments')['settings']
    config = Config.fromfile(CONFIGS[0].with_name('segments_felzenszwalb.py'))
    assert settings == MODELS.build(config.model.segmenter).settings


def test_resumes_and_rewrites_half_written_maps(dataset, generate, capsys):
    generate(*QUICK)
    maps = sorted((dataset / 'segments').rglob('*.png'))
    before = {m: (m.read_bytes(), m.stat().st_mtime_ns) for m in maps}
    maps[0].unlink()
    maps[1].write_bytes(before[maps[1]][0][:-20])
    capsys.readouterr()
    generate(*QUICK)
    assert '2 maps: ' in capsys.readouterr().out
    for path, (content, written) in before.items():
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns == written) == (path in maps[2:])
    generate(*QUICK)
    assert 'Nothing to do' in capsys.readouterr().out


def test_refuses_other_settings_in_a_folder(generate):
    generate(*QUICK)
    with pytest.raises(ValueError, match='scale: 200.0 there, 50.0 asked'):
        generate(*QUICK, 'model.segmenter.scale=50.0')
    with pytest.raises(ValueError, match="method: 'felzenszwalb' there"):
        generate('segments_slic', *QUICK)


def test_options_change_the_segmenter(dataset, image, generate):
    generate(*QUICK, 'model.segmenter.width=80', 'model.segmenter.min_area=9')
    path = segment_path(dataset / 'segments', 'samples/CAM_BACK/0.jpg')
    assert read_label_map(path).shape == (45, 80)
    manifest = read_manifest(dataset / 'segments')
    assert manifest['settings'] == Felzenszwalb(width=80, min_area=9).settings


def test_mistakes_are_named(dataset, generate):
    with pytest.raises(ValueError, match='config takes a config file.*segments_slic'):
        generate('segments_slik')
    with pytest.raises(ValueError, match='--amp: radocc_plugin.Felzenszwalb'):
        generate('--amp')
    with pytest.raises(ValueError, match='checkpoint: nowhere.pth is not'):
        generate('segments_sam-vit-b', '--checkpoint', 'nowhere.pth')
    (dataset / 'samples/CAM_BACK/1.jpg').unlink()
    with pytest.raises(ValueError, match='CAM_BACK/1.jpg: image is missing'):
        generate(*QUICK)


@pytest.mark.parametrize('path', CONFIGS, ids=[p.stem for p in CONFIGS])
def test_every_config_names_every_knob(path):
    """What a config does not say is decided by a default nobody saw."""
    segmenter = Config.fromfile(path).model.segmenter.to_dict()
    cls = MODELS.get(segmenter.pop('type'))
    if hasattr(cls, '__dataclass_fields__'):
        assert set(segmenter) == set(cls.__dataclass_fields__)
    else:
        assert {
            'checkpoint',
            'generator',
            'width',
            'min_area',
            'dtype',
            'connected_components',
        } <= set(segmenter)


@pytest.mark.slow
def test_two_processes_share_the_images(dataset, generate):
    """Each image is written once, and the maps are those of one process."""
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
        '--standalone',
        'tools/generate_segments.py',
        '--ann-file',
        dataset / 'infos.pkl',
        '--data-root',
        dataset,
        '--out',
        dataset / 'shared',
        '--launcher',
        'pytorch',
        '--batch-size',
        '1',
        '--workers',
        '1',
        *QUICK,
    ]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert '4 maps: ' in result.stdout
    assert 'Epoch(test) [2/2]' in result.stdout + result.stderr
    generate(*QUICK, out='alone')
    alone = sorted((dataset / 'alone').rglob('*.png'))
    shared = sorted((dataset / 'shared').rglob('*.png'))
    assert [p.read_bytes() for p in shared] == [p.read_bytes() for p in alone]
    assert len(shared) == 4


def test_inspection_tells_what_is_there(dataset, generate, capsys):
    generate(*QUICK)
    path = segment_path(dataset / 'segments', 'samples/CAM_BACK/0.jpg')
    labels = read_label_map(path)
    path.with_name('1.png').unlink()
    capsys.readouterr()
    out = dataset / 'look'
    visualize_segments.main(
        [
            '--segments',
            str(dataset / 'segments'),
            '--data-root',
            str(dataset),
            '--ann-file',
            str(dataset / 'infos.pkl'),
            '--out',
            str(out),
        ]
    )
    screen = capsys.readouterr().out
    digest = json.loads((dataset / 'segments/manifest.json').read_text())
    assert digest['hash'] in screen
    (row,) = [line.split() for line in screen.splitlines() if 'CAM_BACK' in line]
    assert row[1:4] == ['2', '1', str(labels.max())]
    lines = (out / 'statistics.csv').read_text().splitlines()
    assert len(lines) == 5
    assert sum(',True,' in line for line in lines) == 3
    pictures = sorted(p.relative_to(out) for p in out.rglob('*.png'))
    assert list(map(str, pictures)) == [
        'samples/CAM_BACK/0.png',
        'samples/CAM_FRONT/0.png',
        'samples/CAM_FRONT/1.png',
    ]


def test_inspection_draws_as_many_as_asked(dataset, generate):
    generate(*QUICK)
    main = visualize_segments.main
    for count, drawn in ((0, 0), (2, 2), (-1, 4)):
        out = dataset / f'look{count}'
        main(
            [
                '--segments',
                str(dataset / 'segments'),
                '--data-root',
                str(dataset),
                '--ann-file',
                str(dataset / 'infos.pkl'),
                '--out',
                str(out),
                '--pictures',
                str(count),
            ]
        )
        assert len(list(out.rglob('*.png'))) == drawn


def test_mode_other_than_predict_is_an_error(tmp_path):
    model = MODELS.build(
        dict(
            type='radocc_plugin.SegmentWriter',
            segmenter=dict(type='radocc_plugin.Slic'),
            segments_root=str(tmp_path),
        )
    )
    with pytest.raises(ValueError, match='mode takes predict, got loss'):
        model([np.zeros((4, 4, 3), np.uint8)], ['a.jpg'], mode='loss')
