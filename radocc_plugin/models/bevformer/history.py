"""What a model remembers of earlier frames, in a queue and in a stream.

B batch, Q cells of a BEV map, C channels.
"""

import warnings
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from radocc_plugin.datasets.poses import relative_can_bus
from radocc_plugin.models.bevformer.encoder import PreviousBEV
from radocc_plugin.models.bevformer.frames import Frame


class History(NamedTuple):
    """The last BEV map of each sample of a batch.

    Args:
        bev: Shape (B, Q, C); any numbers where there is none.
        can_bus: Absolute CAN bus vectors of their frames, shape (B, 18).
        exists: Which samples have one, bool, shape (B,).
    """

    bev: Tensor
    can_bus: np.ndarray
    exists: np.ndarray

    def update(self, frame: Frame, bev: Tensor) -> None:
        """Puts the BEV maps of a frame in their rows."""
        self.bev[frame.rows] = bev
        self.can_bus[frame.rows] = frame.can_bus
        self.exists[frame.rows] = True


def seen_from(frame: Frame, history: Optional[History]) -> Tuple[np.ndarray, Optional[PreviousBEV]]:
    """Motion since the frame before, and its BEV maps.

    Args:
        frame: A frame of b samples.
        history: Of all B samples; None if none has a frame before.

    Returns:
        CAN bus vectors relative to the frame before, shape (b, 18), and the
        maps of the b samples; None if none of them has one.
    """
    exists = np.zeros(len(frame.rows), bool)
    if history is not None:
        exists = history.exists[frame.rows]
    relative = frame.can_bus.copy()
    for row, vector in enumerate(frame.can_bus):
        vectors = [vector]
        if exists[row]:
            vectors.insert(0, history.can_bus[frame.rows[row]])
        relative[row] = relative_can_bus(np.stack(vectors), [0] * len(vectors))[0][-1]
    if not exists.any():
        return relative, None
    return relative, PreviousBEV(history.bev[frame.rows], torch.from_numpy(exists))


@dataclass(frozen=True)
class SceneState:
    """The last frame of a scene.

    Args:
        bev: Its BEV map, shape (Q, C).
        can_bus: Its absolute CAN bus vector, shape (18,).
        timestamp: Its time in seconds.
        token: Its sample token.
    """

    bev: Tensor
    can_bus: np.ndarray
    timestamp: float
    token: str


class SceneStream:
    """BEV maps carried from frame to frame, one for each scene.

    Frames of a scene come in the order of time, alone or beside frames of
    other scenes in a batch, in any order of scenes. A frame that does not
    follow the scene's last one (``prev`` in its metainfo) starts the scene
    anew, with a warning if it is not the first. Belongs to no checkpoint;
    ``state_dict`` saves it where a stream is interrupted.

    Args:
        max_scenes: Scenes that are remembered; those that had no frame for
            longest are forgotten first. A batch takes as many as it has
            samples.
    """

    def __init__(self, max_scenes: int = 8) -> None:
        if max_scenes < 1:
            raise ValueError(f'max_scenes takes at least 1, got {max_scenes}')
        self.max_scenes = max_scenes
        self.reset()

    def reset(self) -> None:
        """Forgets all scenes."""
        self._scenes: Dict[str, SceneState] = OrderedDict()
        self._forgotten: Dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._scenes)

    def recall(
        self, data_samples: Sequence, device: Optional[torch.device] = None
    ) -> Optional[History]:
        """The last BEV map of each sample's scene; None if there is none.

        Args:
            data_samples: The frames that come.
            device: Where the maps are wanted.

        Raises:
            ValueError: If a sample lacks ``scene_token``, ``timestamp``,
                ``token`` or ``prev``, a batch has two frames of a scene, or
                a scene goes on that was forgotten.
        """
        keys = _scene_keys(data_samples)
        states = [self._recall(*key, sample.prev) for key, sample in zip(keys, data_samples)]
        known = [state for state in states if state is not None]
        if not known:
            return None
        return History(
            torch.stack([(state or known[0]).bev.to(device) for state in states]),
            np.stack([(state or known[0]).can_bus for state in states]),
            np.array([state is not None for state in states]),
        )

    def _recall(self, scene: str, timestamp: float, prev: str) -> Optional[SceneState]:
        if timestamp > self._forgotten.get(scene, float('inf')):
            raise ValueError(
                f'scene {scene} goes on, but was forgotten for the sake of '
                f'{self.max_scenes} others; raise max_scenes of BEVFormerOcc'
            )
        state = self._scenes.get(scene)
        if state and state.token == prev:
            return state
        if prev:
            warnings.warn(
                'A frame in the middle of a scene came without the one before '
                'it and is taken as a start; BEVFormerOcc takes whole scenes '
                'in the order of time (SceneSampler)'
            )
        return None

    def remember(self, data_samples: Sequence, frame: Frame, bev: Tensor) -> None:
        """Stores the BEV maps (B, Q, C) of a batch."""
        for (scene, timestamp), sample, vector, own in zip(
            _scene_keys(data_samples), data_samples, frame.can_bus, bev.detach()
        ):
            # A copy: a view would keep the batch alive.
            self._scenes[scene] = SceneState(own.clone(), vector, timestamp, sample.token)
            self._scenes.move_to_end(scene)
            self._forgotten.pop(scene, None)
        while len(self._scenes) > max(self.max_scenes, len(bev)):
            scene, state = self._scenes.popitem(last=False)
            self._forgotten[scene] = state.timestamp

    def state_dict(self) -> dict:
        """Everything, to go on with after an interruption."""
        return dict(
            # no arrays: torch.load takes them from trusted files only
            scenes={
                scene: dict(asdict(state), can_bus=torch.from_numpy(state.can_bus))
                for scene, state in self._scenes.items()
            },
            forgotten=dict(self._forgotten),
        )

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what ``state_dict`` returned."""
        self._scenes = OrderedDict(
            (scene, SceneState(**{**fields, 'can_bus': fields['can_bus'].cpu().numpy()}))
            for scene, fields in state['scenes'].items()
        )
        self._forgotten = dict(state['forgotten'])


def _scene_keys(data_samples: Sequence) -> List[Tuple[str, float]]:
    """Scene and time of each sample."""
    keys: List[Tuple[str, float]] = []
    for sample in data_samples:
        for name in ('scene_token', 'timestamp', 'token', 'prev'):
            if name not in sample.metainfo:
                raise ValueError(
                    f'data_samples lack the metainfo {name!r}, by which a '
                    'stream knows its frames; without a stream, set '
                    'video_test_mode=False'
                )
        keys.append((sample.scene_token, float(sample.timestamp)))
    # Copies of one frame may share a batch, as in a benchmark.
    if len(dict(keys)) < len(set(keys)):
        raise ValueError(
            'a batch holds several frames of one scene, got (scene, time) '
            f'{keys}; a stream takes them one after the other: test with '
            'SceneSampler and batch_size=1'
        )
    return keys
