"""Checkpoints of the wrapper with the keys of the plain student."""

from torch import nn

from radocc_plugin.checkpoints import DISTILL as OURS

# In the wrapper and in its checkpoints.
STUDENT, LOSSES, RENDERER = 'student.', 'losses.', 'renderer.'
DISTILL, DISTILL_RENDERER = OURS


def keep_plain_keys(distiller: nn.Module) -> None:
    """Makes the wrapper save ``student.x`` as ``x``, ``losses.x`` as
    ``distill.x`` and ``renderer.x`` as ``distill_renderer.x``, and nothing
    else; loading reverses it.

    Raises:
        ValueError: If the student has a module of one of these names.
    """
    student = distiller.get_submodule('student')
    if any(key.startswith(OURS) for key in student.state_dict()):
        raise ValueError(
            f'{type(student).__name__} has a module '
            f'{DISTILL[:-1]!r} or {DISTILL_RENDERER[:-1]!r}, the names under '
            'which checkpoints keep the weights of RadOccDistiller.losses '
            'and renderer'
        )
    distiller._register_state_dict_hook(_on_save)
    distiller._register_load_state_dict_pre_hook(_on_load)


def plain_name(name: str) -> str:
    """Name in a checkpoint of what the wrapper calls ``name``."""
    for ours, plain in ((STUDENT, ''), (LOSSES, DISTILL), (RENDERER, DISTILL_RENDERER)):
        if name.startswith(ours):
            return plain + name[len(ours) :]
    return name


def _on_save(module, state_dict, prefix, local_metadata) -> None:
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix) :]
        if name.startswith((STUDENT, LOSSES, RENDERER)):
            state_dict[prefix + plain_name(name)] = value


def _on_load(state_dict, prefix, *args) -> None:
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix) :]
        if name.startswith(DISTILL):
            state_dict[prefix + LOSSES + name[len(DISTILL) :]] = value
            continue
        if name.startswith(DISTILL_RENDERER):
            state_dict[prefix + RENDERER + name[len(DISTILL_RENDERER) :]] = value
            continue
        state_dict[prefix + STUDENT + name] = value
        if name.startswith('data_preprocessor.'):
            # Shared by the student and the wrapper.
            state_dict[key] = value
