import importlib.util
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from radocc_plugin.evaluation import write_record
from radocc_plugin.evaluation.table import build_tables, read_quoted
from radocc_plugin.evaluation.table_formats import (to_html, to_markdown,
                                                    to_terminal)
from radocc_plugin.evaluation.terminal import render_text

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / 'docs' / 'published_results.yaml'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location(
        'reproduce_table', ROOT / 'tools' / 'reproduce_table.py')
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
                new_record(radocc, name='BEVDetOcc + RadOcc', role='radocc',
                           seed=seed),
                new_record(baseline, seed=seed),
                new_record(40.0, name='OccTeacher', role='teacher', seed=seed)
            ]
        return out

    return make


def test_rows_are_teacher_baseline_radocc(records):
    table, = build_tables(records({0: (20.0, 21.0)}))
    assert [r.role for r in table.rows] == ['teacher', 'baseline', 'radocc']


def test_one_seed_says_that_noise_is_unknown(records):
    table, = build_tables(records({0: (20.0, 21.5)}))
    delta = table.rows[2].delta
    assert delta.mean == 1.5
    assert delta.verdict == 'one seed: noise unknown'


def test_delta_is_paired_by_seed(records):
    # seeds differ by 10, RadOcc's gain hardly: differences 1.0 and 1.2
    table, = build_tables(records({0: (20.0, 21.0), 1: (30.0, 31.2)}))
    delta = table.rows[2].delta
    assert delta.mean == pytest.approx(1.1)
    assert delta.std == pytest.approx(0.2 / 2**0.5)
    assert delta.verdict == ''
    assert table.rows[1].std[0] == pytest.approx(10 / 2**0.5)


def test_delta_below_its_spread_is_within_noise(records):
    table, = build_tables(records({0: (20.0, 23.0), 1: (20.0, 18.0)}))
    assert table.rows[2].delta.verdict == 'within noise'


def test_unpaired_seeds_have_no_delta(new_record):
    table, = build_tables([new_record(seed=0),
                           new_record(name='R', role='radocc', seed=1)])
    assert table.rows[1].delta is None


def test_another_family_is_no_baseline(new_record):
    table, = build_tables([new_record(family='a'),
                           new_record(name='R', role='radocc', family='b')])
    assert table.rows[1].delta is None


def test_masks_and_data_never_share_a_table(new_record):
    tables = build_tables([
        new_record(),
        new_record(mask='none'),
        new_record(num_samples=81),
    ])
    assert [len(t.rows) for t in tables] == [1, 1, 1]


def test_a_seed_counts_once(new_record):
    with pytest.raises(ValueError, match="'BEVDetOcc' .* have seed 0"):
        build_tables([new_record(), new_record()])


def test_two_baselines_of_a_family_are_an_error(new_record):
    with pytest.raises(ValueError, match='has 2 baselines'):
        build_tables([
            new_record(),
            new_record(config=dict(lr=1)),
            new_record(name='R', role='radocc')
        ])


def test_every_format_has_rows_conditions_and_quotes(records):
    table, = build_tables(records({0: (20.0, 21.5)}))
    table.quoted = read_quoted(PUBLISHED)
    texts = (render_text(to_terminal(table), width=120), to_markdown(table),
             to_html([table]))
    hashes = {row.config for row in table.rows}
    for text in texts:
        flat = ' '.join(text.split())
        for part in ('21.50', '+1.50', 'one seed: noise unknown', 'mask: '
                     'camera', 'seed 0', '6 epochs', '40 samples', '46.06',
                     'Measured here', 'Quoted, not measured here', *hashes):
            assert part in flat
    assert max(map(len, texts[0].splitlines())) <= 120


def test_absent_class_shows_as_a_dash(new_record):
    table, = build_tables([new_record(absent=['others'])])
    row = to_markdown(table).splitlines()[2]
    assert row.split('|')[5].strip() == '-'


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
            assert np.mean(quoted.values[2:]) == pytest.approx(
                quoted.values[0], abs=0.011), quoted.method


def test_published_rows_are_checked(tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text('- {method: A, setting: C, mIoU: 1, source: s}')
    with pytest.raises(ValueError, match=r"p.yaml: entry 0 lacks \['mark'\]"):
        read_quoted(path)


def test_tool_writes_files_and_updates_the_readme(tmp_path, tool, records):
    for number, record in enumerate(records({0: (20.0, 21.5)})):
        write_record(tmp_path / 'runs' / str(number) / 'record.json', record)
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- results:start -->\nold\n'
                      '<!-- results:end -->\nafter\n')
    arguments = [
        str(tmp_path / 'runs'), '--out', str(tmp_path / 'out'), '--update',
        str(readme)
    ]
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


def test_tool_says_where_no_records_are(tmp_path, tool):
    with pytest.raises(ValueError, match='no records here'):
        tool.main([str(tmp_path)])
