import pytest
import torch
from tests.test_distillation.toy_distillation import ToyOccStudent


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(7)
    model = ToyOccStudent(width=16)
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)
