"""Draws mIoU against the number of labels, from the records of this folder.

python docs/results/near-labels/gain.py        # writes docs/gain.png
"""

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
LABELS = (12, 24, 60, 360)
LINES = {
    'baseline: two labelled frames a step': ('baseline-{}', 'black', 'o'),
    'RadOcc, one labelled and one without labels': ('radocc-{}', 'tab:blue', 's'),
    'RadOcc, one without labels beside two labelled': ('radocc-{}-beside', 'tab:red', '^'),
}
NAMES = {'radocc-360': 'radocc-sweeps', 'radocc-360-beside': 'radocc-sweeps-beside'}


def scores(row: str) -> list:
    """mIoU of each seed."""
    files = sorted((HERE / row).glob('seed*/record_near-labels.json'))
    return [json.loads(file.read_text())['metrics']['mIoU'] for file in files]


def main() -> None:
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for shift, (title, (pattern, color, marker)) in enumerate(LINES.items()):
        found = {n: scores(NAMES.get(pattern.format(n), pattern.format(n))) for n in LABELS}
        found = {n: values for n, values in found.items() if values}
        place = np.array(list(found)) * 1.02 ** (shift - 1)
        means = [np.mean(values) for values in found.values()]
        axes.plot(place, means, color=color, marker=marker, label=title)
        for x, values in zip(place, found.values()):
            axes.plot([x] * len(values), values, color=color, marker='.', ls='', alpha=0.4)
            axes.annotate(len(values), (x, min(values)), (0, -12), textcoords='offset points',
                          ha='center', fontsize=7, color=color)
    axes.set_xscale('log')
    axes.set_xticks(LABELS, [f'{n}' for n in LABELS[:-1]] + ['360 (all)'])
    axes.minorticks_off()
    axes.set_xlabel('labelled keyframes of 360 (with all: frames without labels are sweeps)')
    axes.set_ylabel('mIoU, test scenes')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc='lower right')
    axes.set_title('Small: seeds, with their number', fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE.parents[1] / 'gain.png')


if __name__ == '__main__':
    main()
