"""Rich renderables as plain text, for log files and terminals."""
import io

from rich.console import Console, RenderableType


def render_text(renderable: RenderableType, width: int = 120) -> str:
    """What rich would print on ``width`` columns, without colours."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(renderable)
    return console.file.getvalue()
