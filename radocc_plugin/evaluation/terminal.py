"""Rich tables in the terminal, and as plain text or Markdown in files."""

import io
from typing import List

from rich.console import Console, RenderableType
from rich.table import Table


def render_text(renderable: RenderableType, width: int = 120) -> str:
    """What rich would print on ``width`` columns, without colours."""
    text = io.StringIO()
    Console(file=text, width=width, no_color=True).print(renderable)
    return text.getvalue()


def show_table(console: Console, title: str, head: List[str], rows: List[List[str]]) -> str:
    """Prints a table of names and numbers and returns it in Markdown."""
    table = Table(title=title)
    for i, name in enumerate(head):
        table.add_column(name, justify='right' if i else 'left', overflow='fold')
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = [
        f'### {title}',
        '',
        '| ' + ' | '.join(head) + ' |',
        '|---|' + '---:|' * (len(head) - 1),
    ]
    lines += ['| ' + ' | '.join([f'`{row[0]}`', *row[1:]]) + ' |' for row in rows]
    return '\n'.join(lines) + '\n'
