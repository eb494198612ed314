"""Which backend runs where; Triton on a machine without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from radocc_plugin.geometry import VoxelGrid
from radocc_plugin.rendering import get_backend
from radocc_plugin.rendering.backends import cpp, packed, triton
from tests.test_rendering.rendered import everything

# The interpreter must be chosen before triton is imported.
INTERPRETED = """
import sys
import torch
sys.path[:0] = {path!r}
import importlib.util
spec = importlib.util.spec_from_file_location('cases', {cases!r})
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
args = torch.load({args!r}, weights_only=False)
torch.save([cases.everything(*a, backend='triton', min_transmittance=0.)
            for a in args], {out!r})
"""


@pytest.fixture
def triton_here():
    if not triton.is_installed():
        pytest.skip('triton is not installed')


def test_triton_equals_the_reference(geometry_of, volume_of, tmp_path, triton_here):
    """On the CPU, through Triton's interpreter."""
    flat = VoxelGrid((-2, -2.4, 0, 2, 2.4, 0.4), (10, 12, 1))
    args = []
    for geometry, channels in (
        (geometry_of(40, batch=2), 18),
        (geometry_of(20, grid=flat), 3),
        (geometry_of(0), 3),
    ):
        density, values = volume_of(geometry, channels, dtype=torch.float32)
        student, _ = volume_of(geometry, seed=1, dtype=torch.float32)
        args.append((geometry, density, values, student + 0.01))
    torch.save(args, tmp_path / 'args')
    code = INTERPRETED.format(
        path=[p or os.getcwd() for p in sys.path],
        cases=str(Path(__file__).with_name('rendered.py')),
        args=str(tmp_path / 'args'),
        out=str(tmp_path / 'out'),
    )
    run = subprocess.run(
        [sys.executable, '-c', code],
        env=dict(os.environ, TRITON_INTERPRET='1'),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    for case, got in zip(args, torch.load(tmp_path / 'out')):
        for a, b in zip(got, everything(*case, backend='reference')):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-4)


def test_sums_of_integers_are_those_of_floats(geometry_of, volume_of, monkeypatch):
    """What torch does on CUDA in deterministic mode."""
    args = geometry_of(60), *volume_of(geometry_of())[:2]
    args = *args, volume_of(args[0], seed=1)[0]
    plain = everything(*args, backend='torch')
    monkeypatch.setattr(packed, '_running_sum', packed._running_sum_of_integers)
    for got, want in zip(everything(*args, backend='torch'), plain):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    none = packed._running_sum(torch.zeros(0))
    assert none.dtype == torch.float64 and not len(none)
    unknown = torch.tensor([1.0, float('nan')])
    assert bool(packed._running_sum(unknown).isnan().all())


GRID = dict(X0=-40.0, Y0=-40.0, Z0=-1.0, X1=40.0, Y1=40.0, Z1=5.4, NX=200, NY=200, NZ=16)


@pytest.mark.skipif(os.environ.get('TRITON_INTERPRET') == '1', reason='interpreted')
@pytest.mark.parametrize(
    'name',
    [
        'voxel_light',
        'render',
        'render_backward',
        'ray_kl',
        'ray_kl_backward',
        'free_density',
        'add_free_density_gradient',
        'light_of_units',
    ],
)
def test_triton_compiles_for_a_gpu_that_is_not_here(name, triton_here):
    library = pytest.importorskip('triton', minversion='3.2')
    from triton.backends.compiler import GPUTarget

    kernel = getattr(triton.kernels, name)
    constants = dict(GRID, C=18, C_PADDED=32, FREE=17, BLOCK=triton.BLOCKS.get(name, 32))
    kinds = dict.fromkeys(constants, 'constexpr')
    kinds.update(number='i32', stop='fp32', scale='fp32', volumes='*i64', units='*i64')
    if name == 'voxel_light':
        kinds.update(entered='*i64', ended='*i64')
    signature = {n: kinds.get(n, '*fp32') for n in kernel.arg_names}
    source = library.compiler.ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={n: v for n, v in constants.items() if n in signature},
    )
    compiled = library.compile(source, target=GPUTarget('cuda', 90, 32), options=dict(num_warps=1))
    assert len(compiled.asm['cubin']) > 1000
    assert '.acq_rel' not in compiled.asm['ptx']


@pytest.mark.parametrize('warn_only', [False, True])
def test_deterministic_mode_is_kept_or_named(
    geometry_of, volume_of, warn_only, triton_here, monkeypatch
):
    geometry = geometry_of()
    density, values = volume_of(geometry, dtype=torch.float32)
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with (
            pytest.warns(UserWarning, match='deterministic')
            if warn_only
            else pytest.raises(RuntimeError, match='deterministic')
        ):
            triton._say_that_sums_differ()
        twice = [everything(geometry, density, values, density, backend='torch') for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*twice))
        monkeypatch.setattr(triton, 'why_not_usable', lambda: None)
        cuda = torch.device('cuda')
        assert get_backend('auto', cuda).__name__.endswith('packed')
        assert get_backend('auto', cuda, gradients=False) is triton
        assert get_backend('triton', cuda) is triton
    finally:
        torch.use_deterministic_algorithms(False)
    assert get_backend('auto', cuda) is triton


@pytest.mark.parametrize(
    'name, device, error, message',
    [
        ('cuda', 'cpu', ValueError, 'backend takes one of'),
        ('cpp', 'meta', ValueError, 'runs on the CPU'),
        ('triton', 'cpu', (ValueError, ImportError), 'torch'),
    ],
)
def test_backends_that_do_not_run_are_named(name, device, error, message):
    with pytest.raises(error, match=message):
        get_backend(name, torch.device(device))


@pytest.mark.parametrize(
    'compiler,said_of_it',
    [('no-such-compiler', 'no-such-compiler'), (sys.executable, 'headers of Python are missing')],
)
def test_without_compiler_or_headers_torch_renders_and_says_why(
    compiler, said_of_it, monkeypatch, tmp_path
):
    from radocc_plugin.rendering import backends

    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    monkeypatch.setenv('CXX', compiler)
    monkeypatch.setattr(cpp.sysconfig, 'get_paths', lambda: dict(include=str(tmp_path)))
    cpp._extension.cache_clear()
    cpp.why_not_compiled.cache_clear()
    said = []
    monkeypatch.setattr(backends, 'print_log', lambda message, **kwargs: said.append(message))
    monkeypatch.setattr(backends, '_said', set())
    for name in ('cpp', 'auto', 'cpp'):
        assert get_backend(name, torch.device('cpu')) is backends.packed
    assert len(said) == 1 and said_of_it in said[0]
    cpp._extension.cache_clear()
    cpp.why_not_compiled.cache_clear()


def test_a_build_that_was_killed_leaves_nothing_for_the_next_to_wait_for(monkeypatch, tmp_path):
    """Its lock file, and a folder with torch's mark of a running build."""
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    built = []

    def build(name, folder, flags):
        built.append(name)
        (Path(folder) / 'lock').touch()
        raise KeyboardInterrupt if len(built) == 1 else RuntimeError('second')

    monkeypatch.setattr(cpp, '_build', build)
    cpp._extension.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        cpp._extension()
    with pytest.raises(RuntimeError, match='second'):
        cpp._extension()
    assert len(set(built)) == 1
    assert not list(tmp_path.glob('*.so'))
    cpp._extension.cache_clear()


def test_what_was_built_is_loaded_without_building(monkeypatch):
    if cpp.why_not_compiled():
        pytest.skip(cpp.why_not_compiled())
    monkeypatch.setattr(cpp, '_build', None)
    cpp._extension.cache_clear()
    assert cpp._extension().render
