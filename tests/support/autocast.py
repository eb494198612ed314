"""The half types of autocast on a CPU: torch before 2.3 has one of them."""

import torch


def _known(dtype: torch.dtype) -> bool:
    try:
        with torch.autocast('cpu', dtype=dtype):
            return True
    except RuntimeError:
        return False


CPU_AUTOCAST = [dtype for dtype in (torch.bfloat16, torch.float16) if _known(dtype)]
