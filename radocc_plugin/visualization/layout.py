"""A page of pictures and text, laid out in pixels from the top left."""

from typing import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 100
INK = '#232832'


class Page:
    """White page of ``width`` x ``height`` pixels.

    Pictures keep their pixels. The Agg canvas is used directly, so neither a
    display nor matplotlib's global state is touched.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure((width / DPI, height / DPI), dpi=DPI, facecolor='white')
        self._canvas = FigureCanvasAgg(self.figure)

    def paste(self, picture: np.ndarray, x: int, y: int) -> None:
        """Puts an RGB uint8 picture with its upper left corner at (x, y)."""
        self.figure.figimage(picture, x, self.height - y - picture.shape[0], origin='upper')

    def write(self, text: str, x: float, y: float, size: float = 10, **kwargs) -> None:
        """Writes text; ``kwargs`` go to matplotlib's text (ha, va, ...)."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            **dict(dict(fontsize=size, color=INK, va='center'), **kwargs),
        )

    def paste_rows(
        self,
        names: Sequence[str],
        rows: Sequence[tuple],
        *,
        left: int,
        top: int,
        head: int,
        gap: int,
    ) -> None:
        """Pictures of all cameras in rows, with names above and beside.

        Args:
            names: Of the columns.
            rows: (name of the row, a picture for each column), all of one
                size.
            left: Where the first column begins.
            top: Where the first row begins.
            head: Space above it, in whose middle the names stand.
            gap: Pixels between pictures.
        """
        height, width = rows[0][1][0].shape[:2]
        for column, name in enumerate(names):
            x = left + column * (width + gap)
            self.write(name, x + width / 2, top - head / 2 + 4, ha='center')
            for row, (_, pictures) in enumerate(rows):
                self.paste(pictures[column], x, top + row * (height + gap))
        for row, (name, _) in enumerate(rows):
            self.write(
                name,
                left - 8,
                top + row * (height + gap) + height / 2,
                9.5,
                ha='right',
                linespacing=1.5,
            )

    def axes(self, x: float, y: float, width: float, height: float):
        """Matplotlib axes with their upper left corner at (x, y)."""
        return self.figure.add_axes(
            (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def to_array(self) -> np.ndarray:
        """The page as RGB, shape (height, width, 3), uint8."""
        self._canvas.draw()
        return np.array(self._canvas.buffer_rgba())[..., :3].copy()
