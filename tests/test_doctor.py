import builtins
import importlib.util
import subprocess
import sys

import pytest

from radocc_plugin import doctor, mmcv_lite


@pytest.mark.parametrize(
    'version,needed,fits',
    [
        ('2.13.0+cpu', '>=2.1', True),
        ('2.0.1', '>=2.1', False),
        ('2.1.0', '>=2.0.0rc4,<2.2.0', True),
        ('2.0.0rc4', '>=2.0.0rc4,<2.2.0', True),
        ('2.0.0rc3', '>=2.0.0rc4,<2.2.0', False),
        ('2.0.0rc10', '>=2.0.0rc4', True),
        ('2.2.0', '>=2.0.0rc4,<2.2.0', False),
        ('0.10.7', '>=0.8,<1', True),
        ('82.0.0.post1', '<82', False),
        ('1.0', '', True),
    ],
)
def test_versions_are_compared_as_pip_does(version, needed, fits):
    assert doctor.satisfies(version, needed) is fits


def test_unknown_bound_is_an_error():
    with pytest.raises(ValueError, match="takes >= or < .* '==1'"):
        doctor.satisfies('1', '==1')


@pytest.fixture
def versions(monkeypatch):
    """Distributions that seem to be installed; everything imports."""
    found = {}
    monkeypatch.setattr(doctor, 'installed', found.get)
    monkeypatch.setattr(doctor, 'import_error', lambda module: None)
    return found


def test_wrong_version_says_how_to_mend_it(versions):
    versions['mmdet'] = '3.4.0'
    finding = doctor.check_package(doctor.Requirement('mmdet', '>=3.0,<3.4'))
    assert finding.verdict == doctor.WRONG
    assert 'pip install "mmdet>=3.0,<3.4"' in finding.mend


def test_python_is_compared_with_what_an_installation_asks_for(monkeypatch):
    needed = doctor.python_needed()
    assert doctor.check_python().needed == needed
    assert doctor.check_python().verdict == doctor.OK
    monkeypatch.setattr(sys, 'version_info', (3, 6, 1))
    assert doctor.check_python().verdict == doctor.WRONG


def test_package_of_an_extra_may_be_missing_but_not_too_old(versions):
    requirement = doctor.Requirement('mmdet3d', '>=1.1', 'teachers')
    finding = doctor.check_package(requirement)
    assert finding.verdict == doctor.NOTE
    assert 'sparse LiDAR encoders' in finding.mend
    versions['mmdet3d'] = '1.0.0'
    assert doctor.check_package(requirement).verdict == doctor.WRONG


@pytest.mark.parametrize('package', ['numba', 'filelock', 'pillow'])
def test_missing_core_package_says_what_it_costs(versions, package):
    (requirement,) = [r for r in doctor.requirements() if r.package == package]
    finding = doctor.check_package(requirement)
    assert finding.verdict == doctor.WRONG
    assert doctor.COSTS[package] in finding.mend


def test_a_fork_takes_the_place_of_the_original_not_its_folder(versions):
    requirement = doctor.Requirement('mmengine', '>=0.10.4,<1.0')
    versions['onedl-mmengine'] = '0.10.12'
    assert doctor.check_package(requirement).verdict == doctor.OK
    versions['mmengine'] = '0.10.7'
    finding = doctor.check_package(requirement)
    assert finding.verdict == doctor.WRONG
    assert 'pip uninstall -y mmengine onedl-mmengine' in finding.mend


def test_every_requirement_says_what_its_absence_costs():
    packages = {r.package for r in doctor.requirements() if r.extra not in doctor.DEVELOPMENT}
    assert packages == set(doctor.COSTS)


MMCV = doctor.Requirement('mmcv', '>=2.0.0rc4,<2.2.0', 'ops')


def test_mmcv_lite_serves_but_has_no_ops(versions):
    versions['mmcv-lite'] = '2.1.0'
    version, ops = doctor.check_mmcv(MMCV)
    assert (version.verdict, ops.verdict) == (doctor.OK, doctor.NOTE)
    assert version.found == 'mmcv-lite 2.1.0'
    versions['mmcv-lite'] = '2.2.0'
    assert next(doctor.check_mmcv(MMCV)).verdict == doctor.WRONG


def test_mmcv_and_mmcv_lite_are_one_too_many(versions):
    versions['mmcv-lite'] = versions['mmcv'] = '2.1.0'
    (finding,) = doctor.check_mmcv(MMCV)
    assert finding.verdict == doctor.WRONG
    assert 'pip uninstall -y mmcv mmcv-lite' in finding.mend


def test_mmcv_whose_ops_do_not_load_is_wrong(versions, monkeypatch):
    versions['mmcv'] = '2.1.0'

    def import_module(name):
        raise ImportError('undefined symbol')

    monkeypatch.setattr(doctor.importlib, 'import_module', import_module)
    version, ops = doctor.check_mmcv(MMCV)
    assert (version.verdict, ops.verdict) == (doctor.OK, doctor.WRONG)
    assert 'undefined symbol' in ops.found


def test_mmcv_without_ops_is_wrong(versions, monkeypatch):
    versions['mmcv'] = '2.1.0'
    spec = mmcv_lite._Finder().find_spec(mmcv_lite.NAME)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, mmcv_lite.NAME, module)
    version, ops = doctor.check_mmcv(MMCV)
    assert (version.verdict, ops.verdict) == (doctor.OK, doctor.WRONG)
    assert ops.found == 'not compiled'


def test_opencv_packages_must_agree(versions):
    versions['opencv-python'] = versions['opencv-python-headless'] = '4.11'
    assert doctor.check_opencv().verdict == doctor.OK
    versions['opencv-python'] = '4.10'
    assert doctor.check_opencv().verdict == doctor.WRONG


def test_torchvision_may_be_absent_but_not_broken(versions, monkeypatch):
    assert doctor.check_torchvision().verdict == doctor.OK
    versions['torchvision'] = '0.28.0'
    monkeypatch.setattr(doctor, 'import_error', lambda module: 'RuntimeError: no torchvision::nms')
    finding = doctor.check_torchvision()
    assert finding.verdict == doctor.WRONG
    assert 'torchvision::nms' in finding.found


@pytest.mark.parametrize('verdict,code', [('ok', 0), ('note', 0), ('WRONG', 1)])
def test_exit_code_tells_whether_something_required_is_wrong(monkeypatch, capsys, verdict, code):
    finding = doctor.Finding('thing', '1 [x]', '2', verdict, 'mend it')
    monkeypatch.setattr(doctor, 'check_all', lambda: [finding])
    assert doctor.main() == code
    assert '1 [x]' in capsys.readouterr().out


def test_report_is_plain_text_without_rich(monkeypatch, capsys):
    real_import = builtins.__import__

    def without_rich(name, *args, **kwargs):
        if name.startswith('rich'):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without_rich)
    doctor.show([doctor.Finding('thing', '1', '2', doctor.WRONG, 'mend it')])
    assert 'mend it' in capsys.readouterr().out


def test_doctor_runs_without_any_package():
    # -S leaves the installed packages out of the path
    code = (
        'import sys; sys.path.insert(0, sys.argv[1]); '
        'from radocc_plugin.doctor import main; sys.exit(main())'
    )
    root = doctor.__file__.rsplit('/radocc_plugin/', 1)[0]
    run = subprocess.run(
        [sys.executable, '-S', '-c', code, root], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1, run.stderr
    assert 'torch' in run.stdout.split('wrong:')[-1]
