"""Whether data, model and checkpoint speak of the same labels."""

from typing import Any, Mapping, Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from radocc_plugin.checkpoints import label_space_of_checkpoint
from radocc_plugin.label_space import LabelSpace
from radocc_plugin.registry import HOOKS


@HOOKS.register_module()
class CheckLabelSpaceHook(Hook):
    """Stops a run whose model or checkpoint is made for other labels.

    Before training, validation and test the number of classes of the tapped
    head (its ``num_classes``) and the ``point_cloud_range`` of model or head,
    where they exist, are compared with the dataset's label space; a loaded
    checkpoint's classes with those of the dataset.

    Raises:
        ValueError: If they differ; names both.
    """

    def before_train(self, runner) -> None:
        """Compares the model with the training data."""
        check_model(runner.model, runner.train_dataloader.dataset)

    def before_val(self, runner) -> None:
        """Compares the model with the validation data."""
        check_model(runner.model, runner.val_dataloader.dataset)

    def before_test(self, runner) -> None:
        """Compares the model with the test data."""
        check_model(runner.model, runner.test_dataloader.dataset)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compares the checkpoint with the data that the runner has."""
        for loop in (runner._train_loop, runner._test_loop):
            dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
            if dataset is not None:
                check_checkpoint(checkpoint, dataset, 'the checkpoint')


def label_space_of_dataset(dataset) -> Optional[LabelSpace]:
    """The label space of a dataset, None where it describes none."""
    metainfo = getattr(dataset, 'metainfo', None) or {}
    if 'label_space' not in metainfo:
        return None
    return LabelSpace.from_metainfo(metainfo)


def check_checkpoint(checkpoint: Mapping[str, Any], dataset, name: str) -> None:
    """Raises a ValueError if a checkpoint knows other classes.

    Args:
        checkpoint: As MMEngine writes it; others are not checked.
        dataset: That it shall be used with.
        name: Of the checkpoint, for the message.
    """
    space = label_space_of_dataset(dataset)
    trained = label_space_of_checkpoint(checkpoint)
    if space and trained and space.classes != trained.classes:
        raise ValueError(
            f'{name} was trained on {trained.label_space} with '
            f'{trained.num_classes} classes {trained.classes}, the dataset '
            f'is {space.label_space} with {space.num_classes}: '
            f'{space.classes}'
        )


def check_model(model: nn.Module, dataset) -> None:
    """Raises a ValueError if a model predicts other classes or a grid
    elsewhere than the labels of a dataset."""
    space = label_space_of_dataset(dataset)
    if space is None:
        return
    model = model.module if is_model_wrapper(model) else model
    model = getattr(model, 'student', model)
    name = type(model).__name__
    tap = getattr(model, 'occ_tap', None) or {}
    head = dict(model.named_modules()).get(tap.get('module'))
    classes = getattr(head, 'num_classes', None)
    if classes is not None and classes != space.num_classes:
        raise ValueError(
            f'{tap["module"]}.num_classes of {name} is {classes}, the '
            f'dataset is {space.label_space} with {space.num_classes} '
            'classes'
        )
    extent = getattr(model, 'point_cloud_range', getattr(head, 'point_cloud_range', None))
    if (
        extent is not None
        and max(abs(a - b) for a, b in zip(extent, space.point_cloud_range)) > 1e-3
    ):
        raise ValueError(
            f'{name} predicts the range {tuple(extent)}, the labels of '
            f'{space.label_space} in the dataset reach over '
            f'{space.point_cloud_range}'
        )
