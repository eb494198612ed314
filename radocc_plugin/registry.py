"""Registries of the scope ``radocc_plugin``.

MMEngine imports this file and the ``locations`` by itself when a config names
a type ``radocc_plugin.X``; no ``custom_imports`` is needed for our own types.
The parent is MMEngine's root, so the types build under any default scope.
"""

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODEL_WRAPPERS as ROOT_MODEL_WRAPPERS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

from radocc_plugin import compat

SCOPE = 'radocc_plugin'


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(
        name,
        parent=parent,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}' for location in locations],
    )


# models, renderers, losses, the distiller, segmenters, the moving average
MODELS = _child(
    'model',
    ROOT_MODELS,
    'structures',
    'rendering',
    'losses',
    'distillation',
    'evaluation',
    'segments',
    'segments.generation',
    'engine',
)
MODEL_WRAPPERS = _child('model_wrapper', ROOT_MODEL_WRAPPERS, 'segments.generation')
HOOKS = _child('hook', ROOT_HOOKS, 'engine', 'visualization.hook')
DATASETS = _child('dataset', ROOT_DATASETS, 'datasets', 'segments.camera_images')
DATA_SAMPLERS = _child('data sampler', ROOT_DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', ROOT_TRANSFORMS, 'datasets')
METRICS = _child('metric', ROOT_METRICS, 'evaluation', 'segments.generation')

compat.apply()
