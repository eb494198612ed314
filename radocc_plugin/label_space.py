"""Label spaces: what a voxel can be, and where the voxels lie."""

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from radocc_plugin.geometry.voxel_grid import VoxelGrid

# The label of a voxel of which nothing is known; no class, in any space.
UNLABELLED = 255
MASKS = ('camera', 'lidar')
FRAMES = ('ego', 'lidar')


@dataclass(frozen=True)
class LabelSpace:
    """Classes and grid of an occupancy benchmark.

    A dataset's ``metainfo`` holds these fields, so that loading, metrics,
    pictures and the distiller's checks read them from the dataset. Labels are
    indices of ``classes``, of which the last is free space; loaders bring
    files of another order into this one.

    Args:
        label_space: Name of the benchmark.
        classes: Class names, free space last.
        palette: RGB of each class in [0, 255].
        point_cloud_range: ``(x0, y0, z0, x1, y1, z1)``, metres.
        voxel_size: Edge of the cubic voxels, metres.
        masks: Which visibility masks come with the labels, of ``camera`` and
            ``lidar``.
        frame: Frame of the volume at the time of the LiDAR sweep: ``ego``
            (x forward, y left, z up), or ``lidar``.
        file_range: The range that label files cover, where
            ``point_cloud_range`` is only a part of it.
        groups: Names of classes whose mean is of interest, by name of the group.

    Raises:
        ValueError: If a field does not fit; names it.
    """

    label_space: str
    classes: Tuple[str, ...]
    palette: Tuple[Tuple[int, int, int], ...]
    point_cloud_range: Tuple[float, ...]
    voxel_size: float
    masks: Tuple[str, ...] = MASKS
    frame: str = 'ego'
    file_range: Optional[Tuple[float, ...]] = None
    groups: Mapping[str, Tuple[str, ...]] = field(default_factory=dict, compare=False)
    grid: VoxelGrid = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        def put(name: str, value) -> None:
            object.__setattr__(self, name, value)

        put('classes', tuple(self.classes))
        put('palette', tuple(tuple(color) for color in self.palette))
        put('masks', tuple(self.masks))
        put('point_cloud_range', tuple(map(float, self.point_cloud_range)))
        put('file_range', tuple(map(float, self.file_range or self.point_cloud_range)))
        if len(set(self.classes)) < max(2, len(self.classes)):
            raise ValueError(
                f'classes takes two names or more, each once, free space last, got {self.classes}'
            )
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f'palette takes {len(self.classes)} colours, one a class, got {len(self.palette)}'
            )
        put('groups', {name: tuple(members) for name, members in self.groups.items()})
        for name, members in self.groups.items():
            if not members or not set(members) <= set(self.classes[:-1]):
                raise ValueError(f'groups takes names of occupied classes, got {name!r}: {members}')
        if not set(self.masks) <= set(MASKS):
            raise ValueError(f'masks takes names of {MASKS}, got {self.masks}')
        if self.frame not in FRAMES:
            raise ValueError(f'frame takes one of {FRAMES}, got {self.frame!r}')
        put('grid', VoxelGrid.from_voxel_size(self.point_cloud_range, self.voxel_size))
        self.file_slices()  # checks that the voxels of the part are whole

    @classmethod
    def from_metainfo(
        cls, metainfo: Optional[Dict[str, Any]], owner: str = 'the dataset'
    ) -> 'LabelSpace':
        """The label space that a dataset's metainfo describes.

        Args:
            metainfo: Of a dataset; further keys are ignored.
            owner: Whose it is, for the message.

        Raises:
            ValueError: If a field is missing or does not fit.
        """
        metainfo = metainfo or {}
        needed = ('label_space', 'classes', 'palette', 'point_cloud_range', 'voxel_size')
        missing = [name for name in needed if name not in metainfo]
        if missing:
            raise ValueError(
                f'the metainfo of {owner} describes no label space: it lacks '
                f'{", ".join(missing)} (see radocc_plugin.label_space.'
                'LabelSpace)'
            )
        names = (*needed, 'masks', 'frame', 'file_range', 'groups')
        return cls(**{n: metainfo[n] for n in names if n in metainfo})

    def metainfo(self) -> Dict[str, Any]:
        """The fields, for a dataset's ``metainfo``."""
        return dict(
            label_space=self.label_space,
            classes=self.classes,
            palette=self.palette,
            point_cloud_range=self.point_cloud_range,
            voxel_size=self.voxel_size,
            masks=self.masks,
            frame=self.frame,
            file_range=self.file_range,
            groups=self.groups,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes with free space."""
        return len(self.classes)

    @property
    def free(self) -> int:
        """Label of free space; the labels below it are occupied."""
        return self.num_classes - 1

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Voxels (X, Y, Z)."""
        return self.grid.shape

    @property
    def file_shape(self) -> Tuple[int, int, int]:
        """Voxels (X, Y, Z) of a label file."""
        return VoxelGrid.from_voxel_size(self.file_range, self.voxel_size).shape

    def file_slices(self) -> Tuple[slice, slice, slice]:
        """Where the voxels lie in the volume of a label file.

        Raises:
            ValueError: If the range is no box of whole voxels of it.
        """
        slices = []
        for axis, count in enumerate(self.shape):
            offset = (self.point_cloud_range[axis] - self.file_range[axis]) / self.voxel_size
            start = round(offset)
            if abs(offset - start) > 1e-3 or start < 0 or start + count > self.file_shape[axis]:
                raise ValueError(
                    'point_cloud_range takes a box of whole voxels of '
                    f'{self.voxel_size} m in {self.file_range}, got '
                    f'{self.point_cloud_range}'
                )
            slices.append(slice(start, start + count))
        return tuple(slices)

    def cropped(self, point_cloud_range: Optional[Sequence[float]]) -> 'LabelSpace':
        """The part of the space in a box of whole voxels; all for None.

        Raises:
            ValueError: If the box is none.
        """
        if point_cloud_range is None:
            return self
        return replace(self, point_cloud_range=tuple(point_cloud_range))

    def mask(self, name: Optional[str], owner: str) -> str:
        """A mask that the labels come with.

        Args:
            name: ``camera``, ``lidar``, ``both``, or ``none`` for all voxels;
                None for the benchmark's own: ``camera`` where there is that
                mask, else ``none``.
            owner: Who asks for it, for the message.

        Raises:
            ValueError: If the labels come without.
        """
        if name is None:
            return 'camera' if 'camera' in self.masks else 'none'
        known = (*self.masks, 'none')
        if set(self.masks) == set(MASKS):
            known = (*self.masks, 'both', 'none')
        if name not in known:
            raise ValueError(
                f'{owner} takes mask one of {known} on {self.label_space}, got {name!r}'
            )
        return name

    def difference(self, other: 'LabelSpace') -> str:
        """What differs in classes or grid, in words; empty if nothing."""
        for name in ('classes', 'voxel_size', 'frame', 'point_cloud_range'):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return (
                    f'{name} of {self.label_space} is {mine}, that of {other.label_space} {theirs}'
                )
        return ''


def label_space_of(results: Dict[str, Any], owner: str) -> LabelSpace:
    """The label space of a sample, a pipeline's or a packed one's.

    Raises:
        ValueError: If the sample has none; names who asks.
    """
    space = results.get('label_space')
    if not isinstance(space, LabelSpace):
        raise ValueError(
            f'{owner} takes samples with label_space (a LabelSpace), which '
            'the dataset must give; sample '
            f'{results.get("token", "?")} has {space!r}'
        )
    return space
