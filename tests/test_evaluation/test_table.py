import csv
import importlib.util
import io
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from radocc_plugin.evaluation import write_record
from radocc_plugin.evaluation.published import read_quoted
from radocc_plugin.evaluation.table import T_QUANTILES, Delta, build_tables
from radocc_plugin.evaluation.table_formats import to_csv, to_html, to_markdown, to_terminal
from radocc_plugin.evaluation.terminal import render_text
from radocc_plugin.occ3d import CLASSES

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / 'configs' / 'published_results.yaml'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location(
        'reproduce_table', ROOT / 'tools' / 'reproduce_table.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def records(new_record):
    """Three roles; the argument maps a seed to baseline and RadOcc mIoU."""

    def make(mious):
        out = []
        for seed, (baseline, radocc) in mious.items():
            out += [
                new_record(radocc, name='BEVDetOcc + RadOcc', role='radocc', seed=seed),
                new_record(baseline, seed=seed),
                new_record(40.0, name='OccTeacher', role='teacher', seed=seed),
            ]
        return out

    return make


def test_suites_run_where_the_command_is_given(tool, tmp_path, monkeypatch, new_record):
    """With a fake training and test that write as ours do."""
    monkeypatch.chdir(tmp_path)
    Path('mine.yml').write_text(
        yaml.safe_dump(
            dict(
                rows=[
                    dict(
                        id='plain',
                        name='Plain',
                        role='baseline',
                        family='f',
                        config='projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py',
                    )
                ]
            )
        )
    )

    def run(command, cwd=None, **kwargs):
        assert Path(cwd or '.').resolve() == tmp_path
        assert Path(command[1]).is_file()
        if command[1].endswith('train.py'):
            folder = Path(command[command.index('--work-dir') + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'last_checkpoint').write_text('epoch_1.pth')
        else:
            write_record(command[command.index('--record') + 1], new_record(20.0, name='Plain'))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(tool, 'subprocess', SimpleNamespace(run=run))
    tool.main(['mine.yml', '--seeds', '1', '--out', 'table'])
    assert '20.0' in Path('table/table.md').read_text()


def test_rows_are_teacher_baseline_radocc(records):
    (table,) = build_tables(records({0: (20.0, 21.0)}))
    assert [r.role for r in table.rows] == ['teacher', 'baseline', 'radocc']


def test_one_seed_says_that_noise_is_unknown(records):
    (table,) = build_tables(records({0: (20.0, 21.5)}))
    delta = table.rows[2].delta
    assert delta.mean == 1.5
    assert delta.verdict == 'one seed: noise unknown'


def test_delta_is_paired_by_seed(records):
    # seeds differ by 10, RadOcc's gain hardly: differences 1.0, 1.1 and 1.2
    (table,) = build_tables(records({0: (20.0, 21.0), 1: (30.0, 31.1), 2: (40.0, 41.2)}))
    delta = table.rows[2].delta
    assert delta.mean == pytest.approx(1.1)
    assert delta.std == pytest.approx(0.1)
    assert delta.verdict == ''
    assert table.rows[1].std[0] == pytest.approx(10)


def test_gains_of_iou_and_of_groups_of_classes_are_told_beside(new_record):
    def record(role, seed, car, bus, iou):
        one = new_record(role=role, name=role, seed=seed)
        one['metrics']['IoU'] = iou
        one['metrics']['per_class'] = {name: None for name in CLASSES[:-1]}
        one['metrics']['per_class'].update(car=car, bus=bus)
        return one

    pairs = [(10.0, 20.0, 40.0, 12.0, 24.0, 39.0), (11.0, 19.0, 41.0, 15.0, 25.0, 39.0)]
    records = []
    for seed, numbers in enumerate(pairs):
        records += [record('baseline', seed, *numbers[:3]), record('radocc', seed, *numbers[3:])]
    (table,) = build_tables(records)
    further = table.rows[1].further
    assert further['IoU'].differences == [-1.0, -2.0]
    # (12 + 24) / 2 - (10 + 20) / 2, and the second seed; other classes are absent
    assert further['vehicles'].differences == [3.0, 5.0]
    (line,) = (line for line in table.caption if line.startswith('Further gains of radocc'))
    assert 'vehicles +4.00 [-8.71, +16.71]' in line and 'IoU -1.50' in line
    assert 'surfaces' not in line


def test_interval_is_that_of_the_paired_t_test():
    differences = [1.3, -0.2, 0.9, 2.1]
    low, high = Delta(differences).interval
    stats = pytest.importorskip('scipy.stats')
    want = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(want, rel=1e-3)


def test_t_quantiles():
    stats = pytest.importorskip('scipy.stats')
    want = stats.t.ppf(0.975, range(1, 1 + len(T_QUANTILES)))
    np.testing.assert_allclose(T_QUANTILES, want, atol=6e-4)


def test_gain_whose_interval_holds_zero_is_within_noise(records):
    (table,) = build_tables(records({0: (20.0, 23.0), 1: (20.0, 18.0)}))
    assert table.rows[2].delta.verdict == 'within noise'
    # two seeds that agree well are still two seeds
    (table,) = build_tables(records({0: (20.0, 21.0), 1: (20.0, 21.2)}))
    assert table.rows[2].delta.verdict == 'within noise'


def test_gains_with_and_without_augmented_tests_do_not_mix(new_record):
    (table,) = build_tables(
        [
            new_record(20.0),
            new_record(22.0, tta=['flip_x']),
            new_record(23.0, role='radocc', name='R', tta=['flip_x']),
        ]
    )
    assert table.rows[-1].delta.mean == pytest.approx(1.0)
    assert 'test-time augmentation flip_x' in ' '.join(table.caption)


def test_rows_follow_the_given_order(new_record):
    records = [new_record(name=n, family=n) for n in 'abc']
    (table,) = build_tables(records, order=['c', 'a'])
    assert [r.name for r in table.rows] == ['c', 'a', 'b']


def test_rayiou_has_a_column_where_it_was_measured(new_record):
    record = new_record()
    assert 'RayIoU' not in to_markdown(build_tables([record])[0])
    rays = {f'ray/RayIoU{t}': 33.3 for t in ('', '@1', '@2', '@4')}
    metrics = {f'occ/{k}': 20.0 for k in ('mIoU', 'IoU', *(f'IoU_{c}' for c in CLASSES[:17]))}
    (table,) = build_tables([new_record(metrics=dict(metrics, **rays))])
    header, _, row = to_markdown(table).splitlines()[:3]
    assert header.split('|')[4].strip() == 'RayIoU'
    assert row.split('|')[4].strip() == '33.30'


def test_lidar_segmentation_has_a_table_of_its_own(new_record):
    metrics = {f'lidarseg/IoU_{c}': 50.0 for c in CLASSES[1:17]}
    metrics.update({'lidarseg/mIoU': 50.0, 'lidarseg/out_of_range': 12.0, 'lidarseg/free': 3.0})
    record = new_record(mask='points', metrics=metrics)
    assert record['metrics']['out_of_range'] == 12
    assert record['metrics']['per_class']['others'] is None
    tables = build_tables([record, new_record()])
    text = {t.mask: to_markdown(t) for t in tables}['points']
    assert '16 classes of nuScenes-lidarseg' in text
    assert text.splitlines()[0].split('|')[3].strip() == 'Δ mIoU'


def test_unpaired_seeds_have_no_delta(new_record):
    (table,) = build_tables([new_record(seed=0), new_record(name='R', role='radocc', seed=1)])
    assert table.rows[1].delta is None


def test_another_family_is_no_baseline(new_record):
    (table,) = build_tables(
        [new_record(family='a'), new_record(name='R', role='radocc', family='b')]
    )
    assert table.rows[1].delta is None


def test_masks_and_data_never_share_a_table(new_record):
    tables = build_tables([new_record(), new_record(mask='none'), new_record(num_samples=81)])
    assert [len(t.rows) for t in tables] == [1, 1, 1]


def test_a_seed_counts_once(new_record):
    with pytest.raises(ValueError, match="'BEVDetOcc' .* have seed 0"):
        build_tables([new_record(), new_record()])


def test_two_baselines_of_a_family_are_an_error(new_record):
    with pytest.raises(ValueError, match='has 2 baselines'):
        build_tables(
            [new_record(), new_record(config=dict(lr=1)), new_record(name='R', role='radocc')]
        )


def test_every_format_has_rows_conditions_and_quotes(records):
    (table,) = build_tables(records({0: (20.0, 21.5)}))
    table.quoted = read_quoted(PUBLISHED, 'occ3d-val')
    texts = (render_text(to_terminal(table), width=120), to_markdown(table), to_html([table]))
    hashes = {row.config_hash for row in table.rows}
    for text in texts:
        flat = ' '.join(text.split())
        for part in (
            '21.50',
            '+1.50',
            'one seed: noise unknown',
            'mask: camera',
            'seed 0',
            '6 epochs',
            'GPUs unknown',
            '40 samples',
            '46.06',
            'Measured here',
            'Quoted, not measured here',
            *hashes,
        ):
            assert part in flat
    assert max(map(len, texts[0].splitlines())) <= 120


def test_absent_class_shows_as_a_dash(new_record):
    (table,) = build_tables([new_record(absent=['others'])])
    row = to_markdown(table).splitlines()[2]
    assert row.split('|')[5].strip() == '-'


def test_csv_has_a_line_a_row_and_classes_in_occ3d_order(records):
    (table,) = build_tables(records({0: (20.0, 21.0), 1: (30.0, 31.2)}))
    table.quoted = read_quoted(PUBLISHED, 'occ3d-val')[:1]
    teacher, baseline, radocc, quoted = csv.DictReader(io.StringIO(to_csv([table])))
    assert [r['kind'] for r in (teacher, baseline, radocc, quoted)] == [
        'teacher',
        'baseline',
        'radocc',
        'quoted',
    ]
    assert float(radocc['gain']) == pytest.approx(1.1)
    assert float(radocc['gain_low']) < 0 < float(radocc['gain_high'])
    assert radocc['seeds'] == '0 1' and radocc['mask'] == 'camera'
    assert float(quoted['pedestrian']) == 50.07 and quoted['gain'] == ''
    assert list(quoted)[-18:-1] == list(CLASSES[:17])


def test_html_is_well_formed_and_self_contained(records):
    page = to_html(build_tables(records({0: (20.0, 21.0)})))
    stack = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != 'meta':
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Checker().feed(page)
    assert stack == []
    assert '{' not in page.split('</style>')[1]
    assert 'src=' not in page and 'href=' not in page


def test_published_rows_average_to_their_miou():
    for quoted in read_quoted(PUBLISHED):
        if quoted.has_classes:
            # sources round to two decimals
            assert np.mean(quoted.classes) == pytest.approx(quoted.values[0], abs=0.011), (
                quoted.method
            )


def test_published_rows_are_checked(tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text('- {method: A, setting: C, mIoU: 1, source: s}')
    with pytest.raises(ValueError, match=r"p.yaml: entry 0 lacks \['benchmark', 'mark'\]"):
        read_quoted(path)
    path.write_text('- {method: A, setting: C, mIoU: 1, source: s, mark: m, benchmark: b}')
    with pytest.raises(ValueError, match='p.yaml: benchmark of entry 0'):
        read_quoted(path)


def test_published_rows_are_of_one_benchmark(tmp_path):
    rows = read_quoted(PUBLISHED, 'occ3d-val-rays')
    assert rows and {r.benchmark for r in rows} == {'occ3d-val-rays'}
    assert len(rows) < len(read_quoted(PUBLISHED))


def test_tool_writes_files_and_updates_the_readme(tmp_path, tool, records):
    for number, record in enumerate(records({0: (20.0, 21.5)})):
        write_record(tmp_path / 'runs' / str(number) / 'record.json', record)
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n')
    arguments = [str(tmp_path / 'runs'), '--out', str(tmp_path / 'out'), '--update', str(readme)]
    tool.main(arguments)
    once = readme.read_text()
    tool.main(arguments)
    assert readme.read_text() == once
    assert once.startswith('before\n') and once.endswith('-->\nafter\n')
    assert '21.50' in once and 'old' not in once
    assert (tmp_path / 'out' / 'table.html').exists()
    assert (tmp_path / 'out' / 'table.md').read_text().strip() in once


def test_tool_refuses_a_readme_without_markers(tmp_path, tool):
    readme = tmp_path / 'README.md'
    readme.write_text('nothing')
    with pytest.raises(ValueError, match='README.md: takes a line'):
        tool.update_between_markers(readme, 'table')


def test_several_tables_of_a_file_have_their_suites_names(tmp_path, tool):
    readme = tmp_path / 'results.md'
    marker = '<!-- results:start {} -->\n<!-- results:end -->\n'
    readme.write_text(marker.format('one') + marker.format('two'))
    tool.update_between_markers(readme, 'second', 'two')
    tool.update_between_markers(readme, 'first', 'one')
    text = readme.read_text()
    assert (
        text.index('start one')
        < text.index('first')
        < text.index('start two')
        < text.index('second')
    )


def test_tool_says_where_no_records_are(tmp_path, tool):
    with pytest.raises(ValueError, match='no records here'):
        tool.main([str(tmp_path)])


def test_suite_is_run_where_records_lack_and_goes_on(tmp_path, tool, new_record, monkeypatch):
    """Tools are replaced by one that writes what they would."""
    suite = tmp_path / 'mine.yml'
    config = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'
    rows = [
        dict(id=i, name=i, role=r, family='f', config=str(ROOT / config))
        for i, r in (('plain', 'baseline'), ('ours', 'radocc'))
    ]
    suite.write_text(yaml.safe_dump(dict(rows=rows, title='Mine')))
    calls, failing = [], ['train.py ours 1']

    def run(command, **kwargs):
        name = Path(command[1]).name
        values = dict(zip(command, command[1:]))
        folder = Path(values['--work-dir'])
        if name == 'train.py':
            done = f'{name} {folder.parent.name} {values["--seed"]}'
            if done not in failing:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / 'last_checkpoint').write_text('last.pth')
        else:
            seed = int(folder.parent.name[-1])
            done = f'{name} {values["--name"]} {seed}'
            role = values['--role']
            write_record(
                values['--record'],
                new_record(
                    20.0 + seed + (role == 'radocc'),
                    role=role,
                    name=values['--name'],
                    family='f',
                    seed=seed,
                ),
            )
        calls.append(done)
        return SimpleNamespace(returncode=int(done in failing))

    monkeypatch.setattr(tool, 'subprocess', SimpleNamespace(run=run))
    arguments = [str(suite), '--work-dir', str(tmp_path / 'runs'), '--out', str(tmp_path / 'out')]
    with pytest.raises(ValueError, match='suite mine has no records'):
        tool.main(arguments)
    with pytest.raises(SystemExit, match="train.py of 'ours', seed 1, failed"):
        tool.main([*arguments, '--seeds', '0', '1'])
    begun, failing[:] = len(calls), []
    tool.main([*arguments, '--seeds', '0', '1'])
    assert calls[begun:] == ['train.py ours 1', 'test.py ours 1']
    line = (tmp_path / 'out' / 'table.csv').read_text().splitlines()[2]
    assert line.startswith('radocc,ours,') and ',0 1,' in line
    calls.clear()
    tool.main([*arguments, '--seeds', '0', '1'])
    assert calls == []


def test_several_gpus_train_under_torchrun(tool, monkeypatch):
    commands = []
    monkeypatch.setattr(
        tool,
        'subprocess',
        SimpleNamespace(
            run=lambda command, **kwargs: commands.append(command) or SimpleNamespace(returncode=0)
        ),
    )
    tool._call('train', ['c.py', '--cfg-options', 'a=1'], None, 8, 1)
    (command,) = commands
    assert command[1:4] == ['-m', 'torch.distributed.run', '--nproc_per_node=8']
    assert command[5:] == ['--launcher', 'pytorch', 'c.py', '--cfg-options', 'a=1']


def test_seeds_need_a_suite(tmp_path, tool):
    with pytest.raises(ValueError, match='--seeds runs a suite'):
        tool.main([str(tmp_path), '--seeds', '1'])
