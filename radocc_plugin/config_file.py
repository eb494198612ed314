"""Config files: found, overridden, and names in them that have moved."""

import difflib
import inspect
from pathlib import Path
from typing import Dict, Iterator, Optional

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from radocc_plugin.fileio import expand_path

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Top-level names that reach a run; others are variables of the config file.
_OF_A_RUN = {
    *inspect.signature(Runner.__init__).parameters,
    'custom_imports',
    'runner_type',
    'tta_model',
    'tta_pipeline',
    'model_wrapper_cfg',
    'find_unused_parameters',
    'sync_bn',
    'compile',
    'efficient_conv_bn_eval',
    'activation_checkpointing',
    'data_preprocessor',
    'data_root',
}

# What custom_imports of older configs name, and where it is now.
MOVED = {
    'projects.BEVDetOcc.bevdet_occ': 'radocc_plugin.models',
    'projects.BEVFormerOcc.bevformer_occ': 'radocc_plugin.models',
    'projects.FBOcc.fb_occ': 'radocc_plugin.models',
    'projects.OccTeacher.occ_teacher': 'radocc_plugin.models',
    'radocc_plugin.datasets.synthetic': 'radocc_plugin.synthetic',
}


def shipped_root() -> Path:
    """The folder with ``configs``, ``projects`` and ``tools``: in a wheel
    ``.mim``, in a clone the one that holds the package."""
    package = Path(__file__).resolve().parent
    packed = package / '.mim'
    return packed if packed.is_dir() else package.parent


def find_config(path: str, field: str = 'teacher.model') -> Path:
    """A config file from here, or one of those that come with the package.

    Args:
        path: A path from here or from the root of the repository, or the bare
            name of a shipped config, with or without ``.py``.
        field: Who asks for it.

    Raises:
        ValueError: If neither exists; names the ``field`` that asks for it.
    """
    path = expand_path(str(path))
    root = shipped_root()
    places = [Path(path), root / path]
    for place in places:
        if place.is_file():
            return place
    message = f'{field} takes a config file, none at {" or ".join(map(str, places))}'
    if Path(path).name == path:
        shipped = {file.stem: file for file in shipped_configs(root)}
        name = path[:-3] if path.endswith('.py') else path
        if name in shipped:
            return shipped[name]
        close = difflib.get_close_matches(name, shipped, n=3)
        message += f', and no shipped one has that name{close and ": " + ", ".join(close) or ""}'
    raise ValueError(message)


def shipped_configs(root: Path) -> Iterator[Path]:
    """Config files below the folder of ``shipped_root``."""
    for pattern in ('configs/*/*.py', 'projects/*/configs/*.py'):
        yield from root.glob(pattern)


def load_config(path: str, field: str = 'config', options: Optional[dict] = None) -> Config:
    """A config with what a command line overrides and its ``custom_imports``
    done; see ``find_config``.

    ``~`` and environment variables in it are replaced. An option
    ``data_root`` moves every dataset that had the config's ``data_root``;
    ``num_workers=0`` of a loader turns its persistent workers off.

    Args:
        path: See :func:`find_config`.
        field: Who asks for it.
        options: Values by dotted keys, of ``--cfg-options``.

    Raises:
        ValueError: If there is no such file, or it imports a module that
            has moved; names the new one. If an option is no setting of a run
            (a variable of the file, which nothing reads any more), or an
            environment variable is not set.
    """
    config = Config.fromfile(find_config(path, field), import_custom_modules=False)
    _override(config, options or {}, path)
    imports = config.get('custom_imports', {}).get('imports', ())
    for name in [imports] if isinstance(imports, str) else imports:
        for old, new in MOVED.items():
            if name == old or name.startswith(f'{old}.'):
                raise ValueError(
                    f'{path}: custom_imports names {name!r}, which has moved: take {new!r}'
                )
    if config.get('custom_imports'):
        import_modules_from_strings(**config['custom_imports'])
    check_input_sizes(config, path)
    return config


def check_input_sizes(config: Config, path: str) -> None:
    """Raises a ValueError where the stride of a lift-splat student does not
    divide the images that a pipeline makes: said before anything is built,
    not by the first batch."""
    model = config.get('model') or {}
    model = model.get('student') or model
    stride = (model.get('img_view_transformer') or model).get('downsample')
    if not isinstance(stride, int):
        return  # a student of another kind
    divisor = (model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    for name in LOADERS:
        for dataset in dataset_configs(config.get(name) or {}):
            for step in dataset.get('pipeline') or ():
                size = step.get('input_size') if isinstance(step, dict) else None
                if size and any((n + -n % divisor) % stride for n in size):
                    raise ValueError(
                        f'{path}: {name} makes images of input_size={tuple(size)}, which the '
                        f'stride {stride} of the view transformer does not divide; take another '
                        f'size, or set model.data_preprocessor.pad_size_divisor={stride}'
                    )


def _override(config: Config, options: dict, path: str) -> None:
    """What ``load_config`` says of options, paths and workers, in place."""
    old_root = config.get('data_root')
    for name in options:
        variable = name.partition('.')[0]
        if variable not in _OF_A_RUN:
            raise ValueError(
                f'--cfg-options {name}: {variable} is no setting of a run, '
                'and a variable of a config file has had its effect when the '
                'file was read; override what it sets (e.g. '
                'train_dataloader.dataset...), or change it in a config of '
                'your own'
            )
    config.merge_from_dict(options)
    if 'data_root' in options:
        if old_root is None:
            raise ValueError(
                f'--cfg-options data_root: {path} has no data_root; set data_root of each dataset'
            )
        _replace(config._cfg_dict, options['data_root'], old_root)
    _expand(config._cfg_dict)
    for name in LOADERS:
        if config.get(name) and config[name].get('num_workers') == 0:
            config[name].persistent_workers = False


def dataset_configs(config: Dict) -> Iterator[Dict]:
    """The dataset configs with a pipeline, inside of wrappers too."""
    if 'datasets' in config:
        for part in config['datasets']:
            yield from dataset_configs(part)
    elif 'dataset' in config:
        yield from dataset_configs(config['dataset'])
    else:
        yield config


def _replace(value, new: str, old: str) -> None:
    """Sets ``data_root=old`` to ``new`` at any depth."""
    if isinstance(value, dict):
        if value.get('data_root') == old:
            value['data_root'] = new
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for item in value:
        _replace(item, new, old)


def _expand(value):
    """Replaces ``~`` and variables at the start of strings, in place."""
    if isinstance(value, str):
        return expand_path(value) if value.startswith(('~', '$')) else value
    if isinstance(value, dict):
        for key, item in value.items():
            dict.__setitem__(value, key, _expand(item))
    elif isinstance(value, list):
        value[:] = map(_expand, value)
    elif isinstance(value, tuple):
        return type(value)(map(_expand, value))
    return value
