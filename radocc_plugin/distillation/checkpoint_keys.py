"""Checkpoints of the wrapper with the keys of the plain student."""
from torch import nn

# In the wrapper and in its checkpoints.
STUDENT, LOSSES, DISTILL = 'student.', 'losses.', 'distill.'


def keep_plain_keys(distiller: nn.Module) -> None:
    """Makes the wrapper save ``student.x`` as ``x`` and ``losses.x`` as
    ``distill.x``, and nothing else; loading reverses it.

    Raises:
        ValueError: If the student has a module ``distill`` of its own.
    """
    if any(key.startswith(DISTILL) for key in distiller.student.state_dict()):
        raise ValueError(f'{type(distiller.student).__name__} has a module '
                         f'{DISTILL[:-1]!r}, the name under which checkpoints '
                         'keep the weights of RadOccDistiller.losses')
    distiller._register_state_dict_hook(_on_save)
    distiller._register_load_state_dict_pre_hook(_on_load)


def _on_save(module, state_dict, prefix, local_metadata) -> None:
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix):]
        if name.startswith(STUDENT):
            state_dict[prefix + name[len(STUDENT):]] = value
        elif name.startswith(LOSSES):
            state_dict[prefix + DISTILL + name[len(LOSSES):]] = value


def _on_load(state_dict, prefix, *args) -> None:
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix):]
        if name.startswith(DISTILL):
            state_dict[prefix + LOSSES + name[len(DISTILL):]] = value
            continue
        state_dict[prefix + STUDENT + name] = value
        if name.startswith('data_preprocessor.'):
            # Shared by the student and the wrapper.
            state_dict[key] = value
