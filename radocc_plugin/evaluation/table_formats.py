"""A result table as terminal text, Markdown and HTML."""
import math
from html import escape
from typing import List, Optional

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from radocc_plugin.evaluation.table import (COLUMNS, Delta, Quoted,
                                            ResultTable, Row)
from radocc_plugin.occ3d import PALETTE

ABSENT = '-'


def to_terminal(table: ResultTable) -> RenderableType:
    """A rich renderable for 80 columns: summary, then a line per class."""
    summary = Table(box=SIMPLE, title='mIoU and IoU (%)')
    summary.add_column('method')
    for header in ('mIoU', 'IoU', 'Δ mIoU'):
        summary.add_column(header, justify='right')
    summary.add_column('', style='yellow')
    classes = Table(box=SIMPLE, title='IoU per class (%)')
    classes.add_column('class', no_wrap=True)
    columns = []
    for row in table.rows:
        delta = Text(_delta(row.delta), style=_delta_style(row.delta))
        note = row.delta.verdict if row.delta else ''
        summary.add_row(row.name, _mean_std(row, 0), _mean_std(row, 1), delta,
                        note)
        classes.add_column(row.name, justify='right')
        columns.append([_number(v, 1) for v in row.mean[2:]])
    summary.add_section()
    for quoted in table.quoted:
        style = 'italic dim'
        values = [_number(v, 2) for v in quoted.values[:2]]
        summary.add_row(
            f'{quoted.method}, {quoted.setting}',
            *values,
            '',
            'quoted',
            style=style)
        if quoted.has_classes:
            classes.add_column(quoted.method, justify='right', style=style)
            columns.append([_number(v, 1) for v in quoted.values[2:]])
    for name, *values in zip(COLUMNS, *columns):
        classes.add_row(name, *values)
    caption = Text('\n'.join(table.caption) + '\n', style='dim')
    return Group(summary, classes, caption)


def to_markdown(table: ResultTable) -> str:
    """A GitHub Markdown table with its caption; quoted rows in italics."""
    header = ['method', 'mIoU', 'IoU', 'Δ mIoU', *COLUMNS]
    lines = [_pipes(header), _pipes(['---'] + ['---:'] * (len(header) - 1))]
    for row in table.rows:
        delta = _delta(row.delta)
        if row.delta and row.delta.verdict:
            delta += f' ({row.delta.verdict})'
        lines.append(
            _pipes([
                row.name, f'**{_mean_std(row, 0)}**',
                _mean_std(row, 1), delta,
                *(_number(v, 2) for v in row.mean[2:])
            ]))
    for quoted in table.quoted:
        values = [_number(v, 2) for v in quoted.values]
        cells = [f'{quoted.method}, {quoted.setting} (quoted)', *values[:2],
                 '', *values[2:]]
        lines.append(_pipes([f'*{cell}*' if cell else '' for cell in cells]))
    caption = [f'- {line}' for line in table.caption]
    return '\n'.join(lines + [''] + caption) + '\n'


def to_html(tables: List[ResultTable]) -> str:
    """One self-contained HTML page with all tables."""
    return _PAGE.format(body='\n'.join(_html_table(t) for t in tables))


def _html_table(table: ResultTable) -> str:
    swatches = ''.join(
        f'<th class="cls"><div><i style="background:rgb{color}"></i>'
        f'{name.replace("_", " ")}</div></th>'
        for name, color in zip(COLUMNS, PALETTE))
    rows = [_html_row(row) for row in table.rows]
    rows += [_html_quoted(quoted) for quoted in table.quoted]
    caption = ''.join(f'<p>{escape(line)}</p>' for line in table.caption)
    return (f'<section><h2>{escape(table.data)}, mask: {table.mask}</h2>'
            '<div class="scroll"><table><thead><tr><th>method</th><th>mIoU'
            f'</th><th>IoU</th><th>Δ mIoU</th>{swatches}</tr></thead><tbody>'
            f'{"".join(rows)}</tbody></table></div>{caption}</section>')


def _html_row(row: Row) -> str:
    delta = f'<b>{_delta(row.delta)}</b>'
    if row.delta and row.delta.verdict:
        delta += f'<small>{row.delta.verdict}</small>'
    cells = ''.join(f'<td>{_number(v, 1)}</td>' for v in row.mean[2:])
    return (f'<tr class="{row.role}"><th>{escape(row.name)}</th>'
            f'<td class="main">{_mean_std(row, 0)}</td>'
            f'<td>{_mean_std(row, 1)}</td>'
            f'<td class="{_delta_style(row.delta)}">{delta}</td>{cells}</tr>')


def _html_quoted(quoted: Quoted) -> str:
    values = [f'<td>{_number(v, 2)}</td>' for v in quoted.values[:2]]
    values += ['<td></td>']
    values += [f'<td>{_number(v, 1)}</td>' for v in quoted.values[2:]]
    return (f'<tr class="quoted"><th>{escape(quoted.method)}<small>'
            f'{escape(quoted.setting)}, quoted</small></th>'
            f'{"".join(values)}</tr>')


def _number(value: float, digits: int) -> str:
    return ABSENT if math.isnan(value) else f'{value:.{digits}f}'


def _mean_std(row: Row, column: int) -> str:
    text = _number(row.mean[column], 2)
    return text if row.std is None else f'{text} ± {row.std[column]:.2f}'


def _delta(delta: Optional[Delta]) -> str:
    if delta is None:
        return ''
    text = f'{delta.mean:+.2f}'
    return text if delta.std is None else f'{text} ± {delta.std:.2f}'


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
