"""When the past of a stream joins a training."""

from typing import Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from radocc_plugin.models.fbocc.detector import FBOcc
from radocc_plugin.registry import HOOKS


@HOOKS.register_module()
class HistoryScheduleHook(Hook):
    """Trains FB-OCC on single frames first.

    Until then a frame stands for its own past. Testing always has the past.

    Args:
        begin: Iteration from which on the past is used.

    Raises:
        ValueError: If the runner's model holds no ``FBOcc``.

    FB-BEV @6e25469, ``SequentialControlHook``.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def before_train(self, runner) -> None:
        """Finds the models, inside a distiller or a wrapper too."""
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        self.models = [m for m in model.modules() if isinstance(m, FBOcc)]
        if not self.models:
            raise ValueError(
                'HistoryScheduleHook takes a runner whose model '
                f'holds an FBOcc, got {type(model).__name__}'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        """Follows the iteration, so a resumed run goes on as it would."""
        for model in self.models:
            model.do_history = runner.iter >= self.begin
