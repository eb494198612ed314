"""The frozen teacher, invisible to optimizers, checkpoints and DDP."""

from typing import Mapping, Optional, Union

import torch
from mmengine.model import BaseModel
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from radocc_plugin.checkpoints import label_space_of_checkpoint, load_from_checkpoint
from radocc_plugin.config_file import load_config
from radocc_plugin.distillation import checks
from radocc_plugin.distillation.tap import build_feature_taps, build_tap, record_taps
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.losses import ModelOutputs
from radocc_plugin.registry import MODELS


class FrozenTeacher:
    """Builds, loads and runs a teacher; deliberately not an ``nn.Module``.

    It is built at its first use, so that testing never needs it.

    Args:
        model: Config of the model, or the path of a config file whose
            ``model`` is taken; relative to the current folder, else to the
            configs that come with this package.
        checkpoint: Its weights; after the model's own conversions of keys
            every key must match. None keeps the weights of the build
            (``init_cfg``).
        allow_partial: Whether a checkpoint that does not fit is loaded as
            far as it does.
        tap: Where its occupancy logits come from; None if it brings its own.
        features: Taps of further features by name, see ``FeatureTap``.
    """

    def __init__(
        self,
        model: Union[dict, str],
        checkpoint: Optional[str] = None,
        tap: Optional[dict] = None,
        features: Optional[Mapping[str, dict]] = None,
        allow_partial: bool = False,
    ) -> None:
        self.config = model
        self.allow_partial = allow_partial
        self.checkpoint = checkpoint
        self.tap_config = tap
        self.features = dict(features or {})
        self._model: Optional[nn.Module] = None
        # Of its training, where the checkpoint knows it.
        self.label_space: Optional[LabelSpace] = None
        self._student_preprocessor: Optional[nn.Module] = None

    def __deepcopy__(self, memo) -> 'FrozenTeacher':
        # An EMA copy of the student shares the teacher.
        return self

    def model(self, device: torch.device) -> BaseModel:
        """The model in eval mode without gradients, on a device."""
        if self._model is None:
            self._model = self._build()
        return self._model.to(device)

    def prepare(self, data_preprocessor: Optional[nn.Module] = None) -> None:
        """Builds and loads it, before anything is trained.

        Args:
            data_preprocessor: The student's, compared with the teacher's own
                as soon as it sees the student's images.

        Raises:
            FileNotFoundError: If its checkpoint is missing.
            ValueError: If its config is missing or the checkpoint does not
                fit.
        """
        self._student_preprocessor = data_preprocessor
        self.model(torch.device('cpu'))

    def outputs(self, inputs: dict, data_samples: list, device: torch.device) -> ModelOutputs:
        """Its occupancy logits and features for a batch, no gradient.

        It sees the student's inputs, or its own if the pipeline makes them
        (``TeacherPipeline``).

        Raises:
            ValueError: If it sees the student's and wants other images.
        """
        model = self.model(device)
        if 'teacher' in inputs:
            own = model.data_preprocessor(
                dict(
                    inputs=inputs['teacher'],
                    data_samples=[sample.teacher for sample in data_samples],
                )
            )
            inputs, data_samples = own['inputs'], own['data_samples']
        else:
            checks.check_preprocessors(self._student_preprocessor, model.data_preprocessor)
        tap = build_tap(self.tap_config, model, 'teacher.tap')
        taps = build_feature_taps(self.features, model)
        with torch.no_grad(), tap.record(model) as logits, record_taps(model, taps) as features:
            model(inputs, data_samples, mode='tensor')
        return ModelOutputs(
            tap.read(logits),
            {name: taps[name].read(calls) for name, calls in features.items()},
            class_weight=tap.class_weight,
        )

    def _build(self) -> nn.Module:
        config = self.config
        if isinstance(config, str):
            config = load_config(config, 'teacher.model').model
        # The random weights of the build must not shift the student's draws.
        with torch.random.fork_rng(devices=[]):
            model = MODELS.build(config)
            if self.checkpoint is None:
                model.init_weights()
        if self.checkpoint is not None:
            checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu')
            load_from_checkpoint(
                model, checkpoint, self.checkpoint, allow_partial=self.allow_partial
            )
            self.label_space = label_space_of_checkpoint(checkpoint)
        return model.eval().requires_grad_(False)
