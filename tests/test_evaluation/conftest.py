import pytest

from radocc_plugin.evaluation import make_record
from radocc_plugin.occ3d import CLASSES, OCC3D_NUSCENES


@pytest.fixture
def new_record():
    """A function that makes records; keywords override the defaults."""

    def make(miou=20.0, absent=(), **kwargs):
        metrics = {f'occ/IoU_{c}': float('nan') if c in absent else miou for c in CLASSES[:17]}
        metrics.update({'occ/mIoU': miou, 'occ/IoU': 50.0})
        arguments = dict(
            name='BEVDetOcc',
            role='baseline',
            family='bevdet-occ-tiny',
            metrics=metrics,
            space=OCC3D_NUSCENES,
            mask='camera',
            seed=0,
            dataset='Synthetic nuScenes',
            version='v1.0-synthetic',
            split='val',
            num_samples=40,
            config=dict(model=dict(type=kwargs.get('role', 'baseline'))),
            config_file='configs/tiny.py',
            checkpoint='work_dirs/tiny/epoch_6.pth',
            epochs=6,
        )
        return make_record(**dict(arguments, **kwargs))

    return make
