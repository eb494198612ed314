"""A student as an ONNX file, run by onnxruntime."""

import numpy as np
import pytest
import torch

from radocc_plugin.export import export_onnx
from tests.support.models import build_model, make_batch

TINY = 'projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py'


def test_the_exported_student_gives_the_same_logits(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    model = build_model(TINY).eval()
    inputs, samples = make_batch(1)
    path = str(tmp_path / 'student.onnx')
    export_onnx(model, inputs['imgs'], samples, path)
    session = onnxruntime.InferenceSession(path)
    # other images of the same rig
    imgs = inputs['imgs'].flip(-1) * 0.5
    with torch.no_grad():
        expected = model(dict(imgs=imgs), samples).numpy()
    (got,) = session.run(None, dict(imgs=imgs.numpy()))
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_operators_that_cannot_sum_are_refused(tmp_path):
    with pytest.raises(ValueError, match='opset takes 16 or more, got 11'):
        export_onnx(torch.nn.Identity(), torch.zeros(1), [], 'x', opset=11)
