"""Four losses of every family, plain and distilled: a silent change of
training shows here in a minute.

    python tests/test_loss_fixtures.py     # writes them anew, for a change that is meant
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from tests.support.drives import RADOCC as BEVFORMER
from tests.support.drives import Drive, queue_batch
from tests.support.models import build_model, make_batch, make_sample
from tests.support.streams import make_frames

FILE = Path(__file__).parent / 'data' / 'loss_fixtures.json'
CONFIG = 'configs/radocc/radocc_{}_tiny_1xb1-3e_synthetic.py'
STEPS = 4
# Every step amplifies the rounding of the machine: at 1e-3 two machines were
# 1.4e-5 apart in the fourth loss of FB-OCC, distilled.
RATES = {'fbocc': 1e-4}
# The voxel form, which reads no segments, beside the paper's.
VOXEL = dict(type='radocc_plugin.RenderedVoxelConsistency', labelled_factor=0.5)


def frames_of(family):
    """A batch for each of four steps."""
    if family == 'fbocc':
        frames = make_frames(0, STEPS, size=(96, 256))
    elif family == 'bevformer-occ':
        frames = [queue_batch((Drive(step), 2)) for step in range(STEPS)]
        for step, (inputs, samples) in enumerate(frames):
            size = inputs['imgs'].shape[-2:]
            truth = make_sample(*size, seed=step)
            samples[0].gt_occ, samples[0].gt_depth = truth.gt_occ, truth.gt_depth
            inputs['points'] = make_batch(seed=step)[0]['points']
    else:
        frames = [make_batch(seed=step) for step in range(STEPS)]
    for _, samples in frames:
        samples[0].set_metainfo(dict(token='a'))
        samples[0].segments = torch.arange(6 * 12 * 32).view(6, 12, 32).int() // 16
    return frames


def losses_of(family, distilled):
    """The sum of the losses of each step of plain gradient descent, whose
    rounding does not grow as that of Adam does."""
    init_default_scope('mmdet3d')
    path = CONFIG.format(family) if family != 'bevformer-occ' else BEVFORMER
    changes = {'teacher.checkpoint': None, 'renderer.max_rays': 1000, 'losses.voxels': VOXEL}
    model = build_model(path, **changes)
    model = (model if distilled else model.student).train()
    optimizer = torch.optim.SGD(model.parameters(), RATES.get(family, 1e-3))
    sums = []
    for inputs, samples in frames_of(family):
        torch.manual_seed(0)
        loss = sum(model(inputs, samples, mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums.append(loss.item())
    return sums


FAMILIES = ('bevdet-occ', 'flashocc', 'bevformer-occ', 'fbocc')


@pytest.mark.parametrize('distilled', [False, True], ids=['plain', 'distilled'])
@pytest.mark.parametrize('family', FAMILIES)
def test_training_gives_the_losses_that_it_gave(family, distilled):
    want = json.loads(FILE.read_text())[family]['distilled' if distilled else 'plain']
    assert losses_of(family, distilled) == pytest.approx(want, rel=1e-5)


if __name__ == '__main__':
    found = {
        family: dict(plain=losses_of(family, False), distilled=losses_of(family, True))
        for family in FAMILIES
    }
    FILE.write_text(json.dumps(found, indent=1) + '\n')
    sys.stdout.write(FILE.read_text())
