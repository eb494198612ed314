"""Backend ``cpp``: ``cpp_source/``, compiled at the first use."""

import os
import shutil
import sys
import sysconfig
from functools import lru_cache
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List, Optional

import torch
from filelock import FileLock
from mmengine.logging import print_log
from torch import Tensor

from radocc_plugin.geometry import Rays
from radocc_plugin.rendering.density import class_index
from radocc_plugin.rendering.render_geometry import RenderGeometry

_SOURCES = Path(__file__).with_name('cpp_source')
# The build is named after what it was made of and for: its cache is often
# shared between machines and versions.
_FLAGS = {
    'AVX512': [
        '-DCPU_CAPABILITY=AVX512',
        '-DCPU_CAPABILITY_AVX512',
        '-mavx512f',
        '-mavx512dq',
        '-mavx512vl',
        '-mavx512bw',
        '-mfma',
    ],
    'AVX2': ['-DCPU_CAPABILITY=AVX2', '-DCPU_CAPABILITY_AVX2', '-mavx2', '-mfma'],
}


@lru_cache(maxsize=None)
def _extension():
    from torch.utils import cpp_extension

    capability = torch.backends.cpu.get_cpu_capability()
    digest = sha256(f'{sys.version} {torch.__version__} {capability} {_FLAGS}'.encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.read_bytes())
    name = f'radocc_render_{digest.hexdigest()[:12]}'
    library = (
        Path(os.environ.get('TORCH_EXTENSIONS_DIR') or cpp_extension.get_default_build_root())
        / f'{name}.so'
    )
    library.parent.mkdir(parents=True, exist_ok=True)
    # One process builds, in a folder of its own, and the others wait; torch's
    # own mark of a running build outlives a build that is killed.
    with FileLock(str(library.with_suffix('.lock'))):
        if not library.is_file():
            with TemporaryDirectory(dir=library.parent) as folder:
                _build(name, folder, _FLAGS.get(capability, []))
                os.replace(Path(folder) / library.name, library)
    spec = spec_from_file_location(name, library)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(name: str, folder: str, flags: List[str]) -> None:
    from torch.utils import cpp_extension

    compiler = cpp_extension.get_cxx_compiler()
    if shutil.which(compiler) is None:
        raise RuntimeError(
            f'no C++ compiler {compiler!r} was found; install one (such as g++) or set CXX'
        )
    if not cpp_extension.is_ninja_available():
        raise RuntimeError('ninja was not found; pip install ninja')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.is_file():
        raise RuntimeError(
            f'the headers of Python are missing ({header}); '
            'install them (Debian: apt-get install '
            'python3-dev)'
        )
    print_log('Building the compiled renderer, once; it takes about a minute', logger='current')
    cpp_extension.load(
        name=name,
        sources=[str(_SOURCES / 'module.cpp')],
        extra_cflags=['-O3', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', *flags],
        extra_ldflags=['-fopenmp'],
        build_directory=folder,
        is_python_module=False,
    )


@lru_cache(maxsize=None)
def why_not_compiled() -> Optional[str]:
    """What keeps the extension from working here; None if it works."""
    try:
        _extension()
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        return str(error)
    return None


def _coherent_order(rays: Rays) -> Tensor:
    """The rays along a Z-curve over each image, int64, (R,): neighbours in it
    cross the same voxels, whatever the order of the rays."""
    height, width = rays.render_size
    row = torch.div(rays.pixel, width, rounding_mode='floor')
    cell = torch.stack((row, rays.pixel % width))
    for shift, mask in (
        (8, 0xFF00FF),
        (4, 0xF0F0F0F),
        (2, 0x33333333),
        (1, 0x55555555),
    ):  # a gap behind each bit
        cell = (cell | (cell << shift)) & mask
    image = rays.sample * 2**20 + rays.camera
    return ((image << 32) + (cell[0] << 1) + cell[1]).argsort(stable=True)


def _rays(geometry: RenderGeometry) -> tuple:
    rays = geometry.rays
    if 'order' not in geometry.kept:
        geometry.kept['order'] = _coherent_order(rays)
    return (
        rays.origins.float().contiguous(),
        rays.directions.float().contiguous(),
        rays.sample.contiguous(),
        geometry.kept['order'],
        list(geometry.grid.point_cloud_range),
        list(geometry.grid.shape),
    )


def chunked_density(logits, voxel_size, free_index, mode):
    """See ``density.chunked_density``; in one pass."""
    free = class_index(free_index, logits.shape[1])
    if mode == 'softplus':
        return _extension().softplus_density(logits, free)
    return _extension().free_density(logits, free, voxel_size)


def add_density_gradient_(grad_logits, grad_density, density, logits, voxel_size, free_index, mode):
    """See ``density.add_density_gradient_``; leaves voxels without a gradient
    out."""
    free = class_index(free_index, logits.shape[1])
    if mode == 'softplus':
        _extension().add_softplus_gradient(grad_logits, grad_density, density, free)
    else:
        _extension().add_free_density_gradient(grad_logits, grad_density, logits, free, voxel_size)


def render(density, values, geometry, min_transmittance):
    """See ``ops.render``."""
    return tuple(_extension().render([density], [values], *_rays(geometry), min_transmittance))


def render_backward(grads, outputs, density, values, geometry, min_transmittance):
    """Gradients of the density, (V,), and of the values, (V, C)."""
    return tuple(
        _extension().render_backward(
            list(grads), list(outputs), [density], values, *_rays(geometry), min_transmittance
        )
    )


def render_pair(teacher, student, geometry, min_transmittance):
    """Outputs of ``render`` of the student and the teacher, each (density,
    values), ``ray_kl``, and what its gradient needs: one walk."""
    *outputs, divergence = _extension().render(
        [student[0], teacher[0]], [student[1], teacher[1]], *_rays(geometry), min_transmittance
    )
    return tuple(outputs[:3]), tuple(outputs[3:]), divergence, [teacher[0]]


def render_pair_backward(
    grads, grad_kl, outputs, kept, density, values, geometry, min_transmittance
):
    """Gradients of the student's density, (V,), and values, (V, C)."""
    if grad_kl is None:
        return render_backward(grads, outputs, density, values, geometry, min_transmittance)
    return tuple(
        _extension().render_backward(
            [*grads, grad_kl],
            list(outputs),
            [density, *kept],
            values,
            *_rays(geometry),
            min_transmittance,
        )
    )


def ray_kl(teacher_density, student_density, geometry, min_transmittance):
    """See ``ops.ray_kl``: a pair without values."""
    nothing = student_density.new_empty(len(student_density), 0)
    return render_pair(
        (teacher_density, nothing), (student_density, nothing), geometry, min_transmittance
    )[2]


def ray_kl_backward(grad, teacher_density, student_density, geometry, min_transmittance):
    """Gradient of the student's density, (V,)."""
    nothing = student_density.new_empty(len(student_density), 0)
    zero = torch.zeros_like(grad)
    unseen = zero, grad.new_empty(len(grad), 0), zero
    return render_pair_backward(
        unseen,
        grad,
        unseen,
        [teacher_density],
        student_density,
        nothing,
        geometry,
        min_transmittance,
    )[0]


def voxel_light(density, geometry, min_transmittance):
    """See ``ops.voxel_light``."""
    return tuple(_extension().voxel_light(density, *_rays(geometry), min_transmittance))
