"""Config files: where they are, and names in them that have moved."""
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

# What custom_imports of older configs name, and where it is now.
MOVED = {
    'projects.BEVDetOcc.bevdet_occ': 'radocc_plugin.models',
    'projects.BEVFormerOcc.bevformer_occ': 'radocc_plugin.models',
    'projects.FBOcc.fb_occ': 'radocc_plugin.models',
    'projects.OccTeacher.occ_teacher': 'radocc_plugin.models',
    'radocc_plugin.datasets.synthetic': 'radocc_plugin.synthetic',
}


def find_config(path: str, field: str = 'teacher.model') -> Path:
    """A config file from here, or one of those that come with the package.

    Raises:
        ValueError: If neither exists; names the ``field`` that asks for it.
    """
    package = Path(__file__).resolve().parent
    # In a wheel the configs lie in .mim, in a clone beside the package.
    places = [Path(path), package / '.mim' / path, package.parent / path]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f'{field} takes a config file, none at '
                     f'{" or ".join(map(str, places))}')


def load_config(path: str, field: str = 'config') -> Config:
    """A config with its ``custom_imports`` done; see ``find_config``.

    Raises:
        ValueError: If there is no such file, or it imports a module that
            has moved; names the new one.
    """
    config = Config.fromfile(find_config(path, field),
                             import_custom_modules=False)
    imports = config.get('custom_imports', {}).get('imports', ())
    for name in [imports] if isinstance(imports, str) else imports:
        for old, new in MOVED.items():
            if name == old or name.startswith(f'{old}.'):
                raise ValueError(
                    f'{path}: custom_imports names {name!r}, which has moved: '
                    f'take {new!r}')
    if config.get('custom_imports'):
        import_modules_from_strings(**config['custom_imports'])
    return config
