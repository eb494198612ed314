"""A student of another OpenMMLab plugin, whose code is in
``projects/mmdet3d_plugin``, the folder that nearly all of them have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STEP = """
import sys

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS

import radocc_plugin.distillation
from radocc_plugin.config_file import load_config

config = load_config(sys.argv[1])
distiller = MODELS.build(config.model)
exec(open(sys.argv[2]).read())
sample = names['made_up_sample']
data = dict(inputs=names['batch'], data_samples=[sample() for _ in range(2)])
log = distiller.train_step(data, OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.1)))
assert torch.isfinite(log['loss']) and 'loss_rdc' in log
print(type(distiller.student).__module__)
"""


@pytest.fixture(scope='module')
def page():
    """The three blocks of docs/extending.md: model, config, batch."""
    text = (ROOT / 'docs' / 'extending.md').read_text()
    return re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize('package', [True, False], ids=['with __init__', 'without'])
@pytest.mark.parametrize('before', [True, False], ids=['before ours', 'behind ours'])
def test_it_is_distilled_wherever_it_stands_on_the_path(page, package, before, tmp_path):
    model, config, batch = page
    folder = tmp_path / 'projects' / 'mmdet3d_plugin'
    folder.mkdir(parents=True)
    (folder / 'occ_net.py').write_text(model)
    if package:
        (tmp_path / 'projects' / '__init__.py').touch()
        (folder / '__init__.py').touch()
    (tmp_path / 'config.py').write_text(
        f"custom_imports = dict(imports=['projects.mmdet3d_plugin.occ_net'])\nZ = 4\n{config}"
    )
    # what the page's last block makes of it: a batch and made-up samples
    (tmp_path / 'batch.py').write_text(
        'names = dict(CLASSES=4, X=10, Y=10, Z=4, model=config.model)\n'
        f'exec({model.split("@MODELS")[0]!r} + {batch!r}, names)\n'
    )
    # python puts the folder of the script on the path, first of all
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'step.py').write_text(STEP)
    path = [str(tmp_path), str(ROOT)] if before else [str(ROOT), str(tmp_path)]
    result = subprocess.run(
        [sys.executable, 'run/step.py', 'config.py', 'batch.py'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == 'projects.mmdet3d_plugin.occ_net'
