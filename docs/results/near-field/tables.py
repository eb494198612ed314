"""Prints the Markdown tables of docs/results.md from a folder of results."""

import json
import statistics as st
import sys
from collections import defaultdict
from pathlib import Path

from scipy.stats import t

KEYS = ('miou', 'noflat', 'surf', 'veh', 'small', 'geo', 'nll', 'above1')


def interval(d):
    if len(d) < 2:
        return f'{d[0]:+.2f} (one seed)' if d else '-'
    h = t.ppf(0.975, len(d) - 1) * st.stdev(d) / len(d) ** 0.5
    m = st.mean(d)
    word = '' if abs(m) > h else ' (within noise)'
    return f'{m:+.2f} [{m - h:+.2f}, {m + h:+.2f}]{word}'


def table(results, part):
    rows, seconds = defaultdict(dict), defaultdict(list)
    for r in results:
        s = r['spec']
        scores = r['test'] if part == 'test' else r['curve'][-1][1]
        rows[s['L'], s['name']][s['seed']] = scores
        seconds[s['L'], s['name']].append(r['seconds'])
    print('| labels | method | seeds | mIoU | gain, paired | without other_flat | surfaces | vehicles | small | IoU | -log p | s |')
    print('| ---: | --- | ---: | ---: | --- | --- | --- | --- | --- | --- | --- | ---: |')
    for (L, name), v in sorted(rows.items(), key=lambda x: (x[0][0], x[0][1] != 'base', x[0][1])):
        base = rows.get((L, 'base'), {})
        seeds = [s for s in sorted(v) if s in base]
        cells = [str(L), name, str(len(v)), f'{st.mean(e["miou"] for e in v.values()):.2f}']
        for k in ('miou', 'noflat', 'surf', 'veh', 'small', 'geo', 'nll'):
            if name == 'base':
                cells.append('' if k == 'miou' else f'{st.mean(e[k] for e in v.values()):.2f}')
            else:
                cells.append(interval([v[s][k] - base[s][k] for s in seeds]))
        cells.append(f'{st.mean(seconds[L, name]):.0f}')
        print('| ' + ' | '.join(cells) + ' |')


results = [
    json.loads(line)
    for p in sorted(Path(sys.argv[1]).glob('*.result'))
    for line in p.read_text().splitlines()
]
for part in sys.argv[2:] or ['val']:
    print(part)
    table(results, part)
