"""A result table as terminal text, Markdown, HTML and CSV."""

import csv
import io
import math
from html import escape
from typing import List, Optional

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from radocc_plugin.evaluation.published import BENCHMARKS, SCORES, Quoted
from radocc_plugin.evaluation.table import Delta, ResultTable, Row

ABSENT = '-'


def to_terminal(table: ResultTable) -> RenderableType:
    """A rich renderable for 80 columns: summary, then a line per class.

    The classes of quoted rows are in the other formats.
    """
    summary = Table(box=SIMPLE, title=f'{", ".join(table.scores)} (%)')
    summary.add_column('method')
    for header in (*table.scores, 'Δ mIoU'):
        summary.add_column(header, justify='right', no_wrap=True)
    summary.add_column('', style='yellow')
    classes = Table(box=SIMPLE, title='IoU per class (%)')
    classes.add_column('class', no_wrap=True)
    columns = []
    for row in table.rows:
        delta = Text(_delta(row.delta), style=_delta_style(row.delta))
        note = row.delta.verdict if row.delta else ''
        summary.add_row(row.name, *_mean_stds(row, table), delta, note)
        classes.add_column(row.name, justify='right')
        columns.append([_number(v, 1) for v in row.classes])
    summary.add_section()
    for quoted in table.quoted:
        style = 'italic dim'
        summary.add_row(
            f'{quoted.method}, {quoted.setting}',
            *_quoted_scores(quoted, table),
            '',
            'quoted',
            style=style,
        )
    for name, *values in zip(table.space.classes[:-1], *columns):
        classes.add_row(name, *values)
    caption = Text('\n'.join(table.caption) + '\n', style='dim')
    return Group(summary, classes, caption)


def to_markdown(table: ResultTable) -> str:
    """A GitHub Markdown table with its caption; quoted rows in italics."""
    header = ['method', *table.scores, 'Δ mIoU', *table.space.classes[:-1]]
    lines = [_pipes(header), _pipes(['---'] + ['---:'] * (len(header) - 1))]
    for row in table.rows:
        delta = _delta(row.delta)
        if row.delta and row.delta.verdict:
            delta += f' ({row.delta.verdict})'
        lines.append(
            _pipes(
                [
                    row.name,
                    f'**{_mean_std(row, 0)}**',
                    *_mean_stds(row, table)[1:],
                    delta,
                    *(_number(v, 2) for v in row.classes),
                ]
            )
        )
    for quoted in table.quoted:
        cells = [
            f'{quoted.method}, {quoted.setting} (quoted)',
            *_quoted_scores(quoted, table),
            '',
            *(_number(v, 2) for v in quoted.classes),
        ]
        lines.append(_pipes([f'*{cell}*' if cell else '' for cell in cells]))
    caption = [f'- {line}' for line in table.caption]
    return '\n'.join(lines + [''] + caption) + '\n'


def to_html(tables: List[ResultTable]) -> str:
    """One self-contained HTML page with all tables."""
    return _PAGE.format(body='\n'.join(_html_table(t) for t in tables))


def to_csv(tables: List[ResultTable]) -> str:
    """One line a row, measured or quoted, of all tables, in full precision.

    Percent and percentage points; empty where there is no number. Tables of
    several label spaces have the columns of all their classes.
    """
    columns = list(dict.fromkeys(name for table in tables for name in table.space.classes[:-1]))

    def in_columns(values, table):
        known = dict(zip(table.space.classes, values))
        return [known.get(name) for name in columns]

    spread = ('mIoU_std', 'gain', 'gain_std', 'gain_low', 'gain_high')
    header = (
        'kind',
        'method',
        'data',
        'mask',
        *SCORES,
        *spread,
        'seeds',
        'epochs',
        'iterations',
        'gpus',
        'tta',
        'config',
        'config_hash',
        *columns,
        'source',
    )
    lines = []
    for table in tables:
        for row in table.rows:
            gain: List[Optional[float]] = [None] * 4
            if row.delta:
                gain = [row.delta.mean, row.delta.std, *(row.delta.interval or (None, None))]
            std = None if row.std is None else row.std[0]
            lines.append(
                (
                    row.role,
                    row.name,
                    table.data,
                    table.mask,
                    *row.mean[: len(SCORES)],
                    std,
                    *gain,
                    ' '.join(map(str, row.seeds)),
                    row.epochs,
                    row.iterations,
                    row.gpus,
                    ' '.join(row.tta),
                    row.config,
                    row.config_hash,
                    *in_columns(row.classes, table),
                    '',
                )
            )
        for quoted in table.quoted:
            lines.append(
                (
                    'quoted',
                    f'{quoted.method}, {quoted.setting}',
                    BENCHMARKS[quoted.benchmark],
                    '',
                    *quoted.values[: len(SCORES)],
                    *[None] * 12,
                    *in_columns(quoted.classes, table),
                    f'{quoted.source} [{quoted.mark}]',
                )
            )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows([[_plain(v) for v in line] for line in lines])
    return text.getvalue()


def _plain(value):
    if value is None or isinstance(value, float) and math.isnan(value):
        return ''
    return f'{value:.6g}' if isinstance(value, float) else value


def _html_table(table: ResultTable) -> str:
    swatches = ''.join(
        f'<th class="cls"><div><i style="background:rgb{color}"></i>'
        f'{name.replace("_", " ")}</div></th>'
        for name, color in zip(table.space.classes[:-1], table.space.palette)
    )
    rows = [_html_row(row, table) for row in table.rows]
    rows += [_html_quoted(quoted, table) for quoted in table.quoted]
    heads = ''.join(f'<th>{name}</th>' for name in table.scores)
    caption = ''.join(f'<p>{escape(line)}</p>' for line in table.caption)
    return (
        f'<section><h2>{escape(table.data)}, mask: {table.mask}</h2>'
        '<div class="scroll"><table><thead><tr><th>method</th>'
        f'{heads}<th>Δ mIoU</th>{swatches}</tr></thead><tbody>'
        f'{"".join(rows)}</tbody></table></div>{caption}</section>'
    )


def _html_row(row: Row, table: ResultTable) -> str:
    delta = f'<b>{_delta(row.delta)}</b>'
    if row.delta and row.delta.verdict:
        delta += f'<small>{row.delta.verdict}</small>'
    cells = ''.join(f'<td>{_number(v, 1)}</td>' for v in row.classes)
    scores = ''.join(f'<td>{s}</td>' for s in _mean_stds(row, table)[1:])
    return (
        f'<tr class="{row.role}"><th>{escape(row.name)}</th>'
        f'<td class="main">{_mean_std(row, 0)}</td>{scores}'
        f'<td class="{_delta_style(row.delta)}">{delta}</td>{cells}</tr>'
    )


def _html_quoted(quoted: Quoted, table: ResultTable) -> str:
    values = [f'<td>{s}</td>' for s in _quoted_scores(quoted, table)]
    values += ['<td></td>']
    values += [f'<td>{_number(v, 1)}</td>' for v in quoted.classes]
    return (
        f'<tr class="quoted"><th>{escape(quoted.method)}<small>'
        f'{escape(quoted.setting)}, quoted</small></th>'
        f'{"".join(values)}</tr>'
    )


def _number(value: float, digits: int) -> str:
    return ABSENT if math.isnan(value) else f'{value:.{digits}f}'


def _mean_std(row: Row, column: int) -> str:
    text = _number(row.mean[column], 2)
    if row.std is None or math.isnan(row.mean[column]):
        return text
    return f'{text} ± {row.std[column]:.2f}'


def _mean_stds(row: Row, table: ResultTable) -> List[str]:
    return [_mean_std(row, SCORES.index(name)) for name in table.scores]


def _quoted_scores(quoted: Quoted, table: ResultTable) -> List[str]:
    return [_number(quoted.values[SCORES.index(name)], 2) for name in table.scores]


def _delta(delta: Optional[Delta]) -> str:
    return '' if delta is None else str(delta)


def _delta_style(delta: Optional[Delta]) -> str:
    """Colour of a delta; none where it may be noise."""
    if delta is None or delta.verdict:
        return ''
    return 'green' if delta.mean > 0 else 'red'


def _pipes(cells) -> str:
    return '| ' + ' | '.join(c.replace('|', '\\|') for c in cells) + ' |'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RadOcc results</title><style>
:root {{ --ink: #1c2330; --soft: #667085; --line: #e4e7ec; --paper: #fff;
  --stripe: #f7f8fa; --good: #067647; --bad: #b42318; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e7eaf0;
  --soft: #98a2b3; --line: #2d3442; --paper: #12161d; --stripe: #191f29;
  --good: #47cd89; --bad: #f97066; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); margin: 2.5rem auto; max-width: 1280px;
  padding: 0 1.5rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.05rem; margin-top: 2rem; }}
p {{ color: var(--soft); font-size: .85rem; margin: .4rem 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .5rem .55rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }}
thead th {{ vertical-align: bottom; color: var(--soft); font-size: .8rem; }}
tbody th, thead th:first-child {{ text-align: left; position: sticky; left: 0;
  background: var(--paper); }}
.cls div {{ writing-mode: vertical-rl; transform: rotate(180deg);
  margin: 0 auto; font-weight: 500; }}
.cls i {{ display: inline-block; width: .7rem; height: .7rem;
  border-radius: 2px; margin-block: 0 .4rem; border: 1px solid var(--line); }}
.main {{ font-weight: 700; }}
.radocc td, .radocc th {{ background: var(--stripe); }}
.teacher {{ color: var(--soft); }}
.green b {{ color: var(--good); }} .red b {{ color: var(--bad); }}
small {{ display: block; font-weight: 400; font-size: .72rem;
  color: var(--soft); }}
.quoted td, .quoted th {{ font-style: italic; font-weight: 400;
  color: var(--soft); }}
</style></head><body><h1>RadOcc results</h1>
{body}
</body></html>
"""
