"""Weights from files: all of a model's, or an error that names the others."""

from typing import Any, Dict, Mapping, Optional, Sequence

from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from torch import Tensor, nn

from radocc_plugin.label_space import LabelSpace

# What wrappers put in front of every key: DDP, Lightning, averages.
WRAPPERS = ('module.', 'model.', 'ema_')
# What a distilled student's checkpoint has beside the student, see
# ``distillation.checkpoint_keys``.
DISTILL = ('distill.', 'distill_renderer.')


def load_weights(
    model: nn.Module, filename: str, *, allow_partial: bool = False, optional: Sequence[str] = ()
) -> None:
    """Fills a model from a checkpoint file; see ``load_from_checkpoint``."""
    load_from_checkpoint(
        model,
        CheckpointLoader.load_checkpoint(filename, map_location='cpu'),
        filename,
        allow_partial=allow_partial,
        optional=optional,
    )


def load_from_checkpoint(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    filename: str,
    *,
    allow_partial: bool = False,
    optional: Sequence[str] = (),
) -> None:
    """Fills a model from what a checkpoint file holds, all of it or none.

    The model's own conversions of keys take part (``load_state_dict``
    hooks), as those for the layout of BEVDet dev2.1.

    Args:
        model: The model.
        checkpoint: A state dict, or a dict with one as ``state_dict``; its
            keys may stand behind ``WRAPPERS``.
        filename: For messages.
        allow_partial: Whether to load what fits and log the rest.
        optional: Beginnings of keys that the file may lack.

    Raises:
        ValueError: If a key is missing, unexpected or mis-shaped; names the
            file and all of them.
    """
    own = model.state_dict()
    state = plain_keys(checkpoint.get('state_dict', checkpoint), own)
    for key, value in own.items():
        if key.startswith(tuple(optional)):
            state.setdefault(key, value)
    if allow_partial:
        load_state_dict(model, state, strict=False, logger='current')
        return
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f'{filename} does not fit {type(model).__name__}; tools take '
            f'--allow-partial, teachers allow_partial=True, to load what '
            f'does fit. {error}'
        ) from error


def plain_keys(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> Dict[str, Tensor]:
    """A state dict without what wrappers put in front of its keys.

    Args:
        state: Of a file. The counter of MMEngine's averages (``steps``) and
            the second set of weights of mmcv 1's (``ema_`` and the key with
            underscores) are left out.
        own: Of the model; a wrapper's name that its keys begin with stays.
    """
    state = dict(state)
    if not any(key.startswith(DISTILL) for key in own):
        # a distilled student is one without what distilled it
        state = {k: v for k, v in state.items() if not k.startswith(DISTILL)}
    for key in list(state):
        state.pop(f'ema_{key.replace(".", "_")}', None)
    if 'steps' in state and 'steps' not in own:
        del state['steps']
    wrapped = True
    while wrapped:
        wrapped = next(
            (
                prefix
                for prefix in WRAPPERS
                if state
                and all(key.startswith(prefix) for key in state)
                and not any(key.startswith(prefix) for key in own)
            ),
            '',
        )
        state = {key[len(wrapped) :]: value for key, value in state.items()}
    return state


def label_space_of_checkpoint(checkpoint: Mapping[str, Any]) -> Optional[LabelSpace]:
    """The label space that a checkpoint was trained on, None if unknown."""
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    if 'label_space' not in meta:
        return None
    return LabelSpace.from_metainfo(meta, 'the checkpoint')
