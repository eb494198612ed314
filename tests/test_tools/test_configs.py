"""Every shipped config parses, reloads from its dump, and has one name."""

import ast
from collections import Counter
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from radocc_plugin.distillation import RadOccDistiller
from radocc_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path
    for folder in ('projects', 'configs')
    for path in (ROOT / folder).rglob('*.py')
    if '_base_' not in path.parts and 'configs' in path.parts
)
DISTILLED = sorted((ROOT / 'configs' / 'radocc').glob('*.py'))
# Their teacher has a pipeline of its own beside the student's.
DAOCC = [p for p in DISTILLED if p.stem.startswith('radocc-daocc')]
FUSION = [p for p in DISTILLED if p not in DAOCC]


def ids(paths):
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', CONFIGS, ids=ids(CONFIGS))
def test_config_reloads_from_its_dump(path, tmp_path):
    config = Config.fromfile(path)
    config.dump(tmp_path / 'dumped.py')
    again = Config.fromfile(tmp_path / 'dumped.py')
    assert again.to_dict() == config.to_dict()


def test_names_are_unique():
    """A record names its config by the name alone."""
    count = Counter(ids(CONFIGS))
    assert max(count.values()) == 1, count


@pytest.mark.parametrize('path', DISTILLED, ids=ids(DISTILLED))
def test_a_distilled_config_is_a_few_statements(path):
    assert len(ast.parse(path.read_text()).body) <= 3


@pytest.mark.parametrize('path', DISTILLED, ids=ids(DISTILLED))
def test_distilled_config_differs_in_model_and_loads_only(path):
    distilled = Config.fromfile(path).to_dict()
    _, name = path.name.split('_', 1)
    beside = '-sweeps-' in name  # unlabelled frames beside the student's batch
    name = name.replace('-sweeps-', '-').replace('8xb6', '8xb4')
    (student_path,) = (ROOT / 'projects').glob(f'*/configs/{name}')
    student = Config.fromfile(student_path).to_dict()
    assert distilled.pop('radocc')
    distilled.pop('paper', None)
    distilled.pop('teacher_inputs', None)
    assert distilled.pop('model')['student'] == student.pop('model')
    # What is loaded beside draws no random numbers: the student sees the same.
    # Its depth maps are the same too, since past sweeps are in none.
    own = student['train_dataloader']['dataset']['pipeline']
    own_types = {t['type'] for t in own}
    loaded = distilled['train_dataloader']['dataset'].pop('pipeline')
    assert {t['type'] for t in loaded} - own_types <= {
        'radocc_plugin.LoadSegments',
        'radocc_plugin.LoadLidarPoints',
        'radocc_plugin.PointsToDepthMaps',
        'radocc_plugin.TeacherPipeline',
    }
    loaded = [t for t in loaded if t['type'] in own_types]
    for transform in (*own, *loaded):
        transform.pop('num_sweeps', None)
    assert loaded == student['train_dataloader']['dataset'].pop('pipeline')
    if beside:
        loaders = [config.pop('train_dataloader') for config in (distilled, student)]
        ours, theirs = (loader.pop('batch_size') for loader in loaders)
        sampler = loaders[0].pop('sampler')
        assert sampler['labelled'] == theirs and theirs + sampler['unlabelled'] == ours
        assert loaders[0]['dataset'].pop('sweeps_per_keyframe')
        loaders[1].pop('sampler')
        assert loaders[0] == loaders[1]
        # as many labels a step, so the learning rate of the student
        scales = [config.pop('auto_scale_lr')['base_batch_size'] for config in (distilled, student)]
        assert scales[0] * theirs == scales[1] * ours
        assert distilled == student
        return
    # Beside the student's labelled frames ours may draw unlabelled ones.
    for config in (distilled, student):
        config['train_dataloader']['sampler'].pop('unlabelled', None)
    assert distilled == student


@pytest.mark.parametrize('path', DAOCC, ids=ids(DAOCC))
def test_daocc_sees_what_its_own_test_pipeline_makes(path):
    twin = Config.fromfile(path)
    assert (
        ('no-mask' in path.stem)
        == ('no-mask' in twin.model.teacher.model)
        == ('wo_mask' in twin.model.teacher.checkpoint)
    )
    tested = Config.fromfile(ROOT / twin.model.teacher.model).test_dataloader.dataset
    loads, own, *_ = twin.train_dataloader.dataset.pipeline
    assert own.type == 'radocc_plugin.TeacherPipeline'
    assert list(own.cams) == list(tested.cams)
    assert tested.get('key_ego', 'lidar') == 'lidar'
    assert [loads, *own.pipeline] == [
        step for step in tested.pipeline if 'LoadOcc3D' not in step.type
    ]


@pytest.mark.parametrize('path', FUSION, ids=ids(FUSION))
def test_teacher_was_trained_in_the_frame_and_on_the_depths_it_meets(path):
    """Else its volume is shifted against the student's."""
    twin = Config.fromfile(path)
    teacher = Config.fromfile(ROOT / twin.model.teacher.model)
    assert twin.model.teacher.checkpoint.split('/')[1] == Path(teacher.filename).stem
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        frames = [config[loader].dataset.get('key_ego', 'lidar') for config in (twin, teacher)]
        assert frames == [key_ego_of(path.stem)] * 2
    lidar = ['radocc_plugin.LoadLidarPoints', 'radocc_plugin.PointsToDepthMaps']
    trained, tested, met = [
        [t for t in pipeline if t['type'] in lidar]
        for pipeline in (
            teacher.train_dataloader.dataset.pipeline,
            teacher.test_dataloader.dataset.pipeline,
            twin.train_dataloader.dataset.pipeline,
        )
    ]
    # A LiDAR-only teacher needs no depth maps.
    assert [t['type'] for t in trained] in (
        [lidar[:1], lidar] if not teacher.model.img_backbone else [lidar]
    )
    assert trained == tested == met
    # Images of another scale than in its training are none for a teacher, nor
    # those of another order of colours.
    if teacher.model.img_backbone:
        assert preprocessor(twin.model.student) == preprocessor(teacher.model)
        assert image_width(twin) == image_width(teacher)


def key_ego_of(name):
    if name.endswith(('synthetic', 'surroundocc', 'openocc', 'waymo')) or name.startswith(
        ('radocc_bevformer-occ_base', 'radocc_bevformer-occ_small')
    ):
        return 'lidar'
    return 'CAM_FRONT' if 'fbocc' in name else 'CAM_FRONT_LEFT'


def preprocessor(model):
    # what it computes, not how it moves data
    return {'channel_order': 'rgb', **model.data_preprocessor, 'non_blocking': None}


def image_width(config):
    (width,) = {
        t['input_size'][1] for t in config.train_dataloader.dataset.pipeline if 'input_size' in t
    }
    return width


@pytest.mark.parametrize('path', FUSION, ids=ids(FUSION))
def test_distilled_config_builds(path):
    model = MODELS.build(Config.fromfile(path).model)
    assert isinstance(model, RadOccDistiller)
    teacher = Config.fromfile(ROOT / model.teacher.config).model.occ_head
    student = Config.fromfile(path).model.student
    student = student.get('occ_head') or student.get('pts_bbox_head')
    if student is None:  # FB-OCC learns by focal loss and has no such head
        return
    # A head on BEV maps differs from the teacher's in all but the loss.
    names = ('class_weight',) if student.type != teacher.type else teacher
    assert all(student.get(name) == teacher.get(name) for name in names)


def test_model_index_names_what_is_there():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    names = []
    for metafile in index['Import']:
        content = yaml.safe_load((ROOT / metafile).read_text())
        collections = {c['Name'] for c in content['Collections']}
        for collection in content['Collections']:
            assert (ROOT / collection['README']).is_file()
        for model in content['Models']:
            names.append(model['Name'])
            assert (ROOT / model['Config']).is_file()
            assert Path(model['Config']).stem == model['Name']
            assert model['In Collection'] in collections
            if teacher := model.get('Metadata', {}).get('Teacher'):
                config = Config.fromfile(ROOT / model['Config'])
                assert config.model.teacher.model == teacher
            assert model.get('Weights', 'x.pth').endswith('.pth')
    # segment maps are made, not trained
    trained = [p for p in CONFIGS if p.parent.name != 'segments']
    assert len(names) == len(set(names)) == len(trained)
