"""The RadOcc wrapper: any occupancy student plus rendered consistency."""

from dataclasses import replace
from typing import Container, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

import torch
from mmengine.dist import get_rank
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from radocc_plugin.checkpoints import plain_keys
from radocc_plugin.distillation import checks
from radocc_plugin.distillation.cached_teacher import CachedTeacher
from radocc_plugin.distillation.calibration import (
    class_frequency_logits,
    fit_free_odds,
    free_log_odds,
    with_free_odds,
)
from radocc_plugin.distillation.checkpoint_keys import keep_plain_keys, plain_name
from radocc_plugin.distillation.label_teacher import LabelTeacher
from radocc_plugin.distillation.pull import limit_pull
from radocc_plugin.distillation.schedule import WeightSchedule, active_factors
from radocc_plugin.distillation.tap import build_feature_taps, build_tap, record_taps
from radocc_plugin.distillation.teacher import FrozenTeacher
from radocc_plugin.geometry import Cameras, Rays, input_cameras
from radocc_plugin.label_space import UNLABELLED
from radocc_plugin.losses import (
    DistillBatch,
    ModelOutputs,
    TeacherView,
    compared_part,
    distill_losses,
    needs_of,
)
from radocc_plugin.losses.common import check_choice, connected_zero, seeded_generator
from radocc_plugin.registry import MODELS
from radocc_plugin.rendering import Render, VoxelLight


@MODELS.register_module()
class RadOccDistiller(BaseModel):
    """Trains a student with RadOcc; everywhere else it is the student.

    In mode ``loss`` the student runs once, its logits are tapped, the frozen
    teacher runs on the same batch, both volumes are rendered along the same
    rays, and the consistency losses join the student's own. While no loss
    has a weight above 0, teacher and renderer rest. Other modes return the
    student's answer. Checkpoints have the keys of the plain student and load
    into it; what losses learn themselves is saved under ``distill.``.

    Args:
        student: The student, a config or a built model.
        teacher: Arguments of ``FrozenTeacher``: ``model``, ``checkpoint``,
            ``tap``; with ``cache``, a folder or further arguments of
            ``CachedTeacher``, its logits are read from there; with
            ``labels=dict(num_classes=C)`` the labels are the teacher.
        renderer: Config of the renderer.
        losses: Configs of the consistency losses, by any name.
        student_tap: Where the student's logits come from, see ``OccTap``;
            None for a student that brings its ``occ_tap``.
        student_features: Taps of the student's features by name, see
            ``FeatureTap``, for losses that compare features.
        teacher_features: The same of the teacher.
        schedules: Arguments of ``WeightSchedule`` by the names of ``losses``;
            the others have constant weights.
        calibrate: Whether the class weights of each model's cross entropy
            (``class_weight`` of its tap) are taken out of the logits that
            are rendered. A model trained with small weights for free space
            sees fog in front of every camera without it. ``'fit'`` also fits
            scale and shift of its log-odds of free space to the labelled
            voxels of each batch, which is right for any loss, such as focal
            loss.
        nonfinite: What NaN or infinity in a compared tensor does: ``error``,
            or ``skip`` the distillation in this step and count it.
        init_from_teacher: Names of modules of the student, such as
            ``('img_bev_encoder_backbone', 'occ_head')``, whose weights
            ``init_weights`` takes from the teacher's checkpoint, where both
            have one of equal shape; each must give some. None for none.
        seed: Seed of the ray draw. It has a generator of its own, so that
            the student's random numbers are those of plain training.
        max_pull: Largest norm of the gradient of all our losses at the
            student's logits, in units of that of the student's own losses;
            above it ours are scaled down together (logged as
            ``distill_scale``). Clipping the sum would shrink both. None for
            no limit.

    Raises:
        ValueError: If a field is not valid, or, at the first step, the
            volumes disagree.

    RadOcc (AAAI 2024, arXiv 2312.11829).
    """

    def __init__(
        self,
        student: Union[dict, nn.Module],
        teacher: dict,
        renderer: dict,
        losses: Dict[str, dict],
        student_tap: Optional[dict] = None,
        student_features: Optional[Dict[str, dict]] = None,
        teacher_features: Optional[Dict[str, dict]] = None,
        schedules: Optional[Dict[str, dict]] = None,
        calibrate: Union[bool, str] = True,
        nonfinite: str = 'error',
        init_from_teacher: Optional[Sequence[str]] = None,
        seed: int = 0,
        max_pull: Optional[float] = None,
    ) -> None:
        built = MODELS.build(student) if isinstance(student, dict) else student
        super().__init__(data_preprocessor=built.data_preprocessor)
        check_choice('RadOccDistiller.nonfinite', nonfinite, checks.NONFINITE)
        check_choice('RadOccDistiller.calibrate', calibrate, (True, False, 'fit'))
        if max_pull is not None and max_pull <= 0:
            raise ValueError(
                f'RadOccDistiller.max_pull takes a positive number or None, got {max_pull}'
            )
        checks.check_choices('RadOccDistiller.schedules', schedules or (), losses)
        self.student: nn.Module = built
        self.student_tap = build_tap(student_tap, built, 'student_tap')
        self.student_features = build_feature_taps(student_features, built)
        self.teacher = build_teacher(teacher, teacher_features)
        # Their random weights must not shift the student's draws.
        with torch.random.fork_rng(devices=[]):
            self.renderer = MODELS.build(renderer)
            self.losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in losses.items()})
        checks.check_views(self.renderer, dict(self.losses))
        checks.check_features(dict(self.losses), self.student_features, teacher_features or {})
        self.schedules = {
            name: WeightSchedule(**schedule) for name, schedule in (schedules or {}).items()
        }
        for loss in self.losses.values():
            if getattr(loss, 'loss_weight', 1) == 0:
                # Never used: DDP and gradient clipping must not see them.
                loss.requires_grad_(False)
        self.calibrate = calibrate
        self.nonfinite = nonfinite
        self.max_pull = max_pull
        self.init_from_teacher = tuple(init_from_teacher or ())
        self.seed = seed
        # Names of the losses that it has returned beside the student's.
        self.returned: Set[str] = set()
        keep_plain_keys(self)

    def init_weights(self) -> None:
        """The student's own initialisation, then ``init_from_teacher``.

        The teacher is built, so that what it lacks shows before the training.

        A resumed run, or ``load_from``, replaces all of it afterwards.

        Raises:
            FileNotFoundError: If the teacher's checkpoint is missing.
            ValueError: If a loss needs a teacher that cannot be built, the
                teacher has no checkpoint, or a named module
                takes nothing from it.
        """
        super().init_weights()
        if self.init_from_teacher:
            take_weights(
                self.student, getattr(self.teacher, 'checkpoint', None), self.init_from_teacher
            )
        if any(
            getattr(loss, 'loss_weight', 1) and not self._never(name)
            for name, loss in self.losses.items()
        ):
            self.teacher.prepare(self.data_preprocessor)

    def _never(self, name: str) -> bool:
        """Whether a loss is stopped from the start."""
        return name in self.schedules and self.schedules[name].stop == 0

    def named_parameters(
        self, prefix: str = '', recurse: bool = True, **kwargs
    ) -> Iterator[Tuple[str, nn.Parameter]]:
        """As usual, with the names that checkpoints have: the student's own.

        So settings that match names, like layer-wise learning rates, are
        those of the plain student.
        """
        start = len(f'{prefix}.') if prefix else 0
        for name, parameter in super().named_parameters(prefix, recurse, **kwargs):
            yield name[:start] + plain_name(name[start:]), parameter

    def forward(
        self, inputs: dict, data_samples: Optional[list] = None, mode: str = 'tensor', **kwargs
    ) -> Union[Dict[str, Tensor], List, Tensor]:
        """The student's forward; in mode ``loss`` with RadOcc's losses."""
        if mode != 'loss':
            return self.student(inputs, data_samples, mode=mode, **kwargs)
        if data_samples is None:
            raise ValueError("RadOccDistiller takes data_samples in mode 'loss', got None")
        factors = active_factors(dict(self.losses), self.schedules)
        if not factors:
            losses = self.student(inputs, data_samples, mode='loss', **kwargs)
            return self._join(losses, {}, ())
        with (
            self.student_tap.record(self.student) as logits,
            record_taps(self.student, self.student_features) as features,
        ):
            losses = self.student(inputs, data_samples, mode='loss', **kwargs)
        training = torch.is_grad_enabled()
        student = ModelOutputs(
            self.student_tap.read(logits, needs_grad=training),
            {
                name: self.student_features[name].read(calls, training)
                for name, calls in features.items()
            },
            class_weight=self.student_tap.class_weight,
        )
        teacher = self.teacher.outputs(inputs, data_samples, student.occ_logits.device)
        if checks.skips_step(self.nonfinite, student, teacher, data_samples):
            return self._join(losses, {}, ())
        ours = self.consistency(student, teacher, data_samples, inputs.get('points'), factors)
        if self.max_pull is not None and training:
            tapped = self.student_tap.output(logits)
            ours = limit_pull(ours, losses, tapped, self.max_pull)
        return self._join(losses, ours, factors)

    def consistency(
        self,
        student: ModelOutputs,
        teacher: ModelOutputs,
        data_samples: list,
        points: Optional[List[Tensor]] = None,
        factors: Optional[Mapping[str, float]] = None,
    ) -> Dict[str, Tensor]:
        """The distillation losses; renders along the same rays if one asks.

        Args:
            student: Logits (B, X, Y, Z, C) in the augmented ego frame, and
                features.
            teacher: The same of the teacher.
            data_samples: Samples with cameras and what the losses need.
            points: LiDAR points in the augmented ego frame, one cloud a
                sample; for ``renderer.ray_sampler='lidar'`` only.
            factors: The losses to compute and factors of their weights; None
                for all.
        """
        losses = {
            name: loss for name, loss in self.losses.items() if factors is None or name in factors
        }
        compared = {compared_part(loss) for loss in losses.values()}
        needs_light = any('light' in needs_of(x) for x in losses.values())
        traces = needs_light or 'render' in compared
        looks = any('teacher_view' in needs_of(x) for x in losses.values())
        fits = self.calibrate == 'fit' and (traces or looks)
        if traces or 'occ_logits' in compared:
            checks.check_volumes(student.occ_logits, teacher.occ_logits)
        checks.check_label_space(
            student.occ_logits, self.renderer, losses, data_samples, self.teacher.label_space
        )
        device = student.occ_logits.device
        draws_segments = traces and getattr(self.renderer, 'ray_sampler', None) == 'segments'
        batch = DistillBatch.from_data_samples(
            data_samples,
            losses.values(),
            device,
            self._generator('losses'),
            needs=('segments',) * draws_segments + ('gt_occ', 'mask_camera') * fits,
        )
        if draws_segments:
            batch.require('segments', "renderer.ray_sampler='segments'")
        if traces or looks:
            cameras = Cameras.from_data_samples(data_samples, device)
            volumes = self.rendered_volumes(teacher, 'teacher', batch)
        if traces:
            geometry = self.renderer.trace(
                cameras,
                student.occ_logits.shape[1:4],
                self._generator('rays'),
                points=points,
                segments=batch.segments,
            )
        if needs_light:
            batch = replace(batch, light=self._light(volumes, geometry, cameras))
        if looks:
            view = self._teacher_view(volumes, cameras, data_samples)
            batch = replace(batch, teacher_view=view)
        if 'render' in compared:
            renders = self.renderer.render_pair(
                volumes, self.rendered_volumes(student, 'student', batch), geometry
            )
            teacher, student = (
                replace(model, render=render) for model, render in zip((teacher, student), renders)
            )
        return distill_losses(losses, student, teacher, batch, factors)

    def _light(
        self, volumes: Tuple[Tensor, Optional[Tensor]], geometry, cameras: Cameras
    ) -> VoxelLight:
        """The teacher's light, in rays of the full render: where only
        ``max_rays`` of its pixels were drawn, each stands for several."""
        crossed = any(getattr(loss, 'light', None) == 'share' for loss in self.losses.values())
        options = dict(crossed=True) if crossed else {}
        light = self.renderer.light(volumes[0], geometry, volumes[1], **options)
        share = self.renderer.num_pixels(cameras) / max(len(geometry.rays), 1)
        return VoxelLight(*(share * x for x in light if x is not None))

    def _teacher_view(
        self, volumes: Tuple[Tensor, Optional[Tensor]], cameras: Cameras, data_samples: list
    ) -> TeacherView:
        @torch.no_grad()
        def render(rays: Rays) -> Render:
            geometry = self.renderer.geometry(rays, cameras, volumes[0].shape[1:4])
            return self.renderer(volumes[0], geometry, volumes[1])

        return TeacherView(input_cameras(cameras, data_samples), render)

    def rendered_volumes(
        self, outputs: ModelOutputs, model: str, batch: Optional[DistillBatch] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """What is rendered of a model.

        Args:
            outputs: Of the student or the teacher.
            model: Which of the two, for messages.
            batch: Labels and camera mask; for ``calibrate='fit'`` only.

        Returns:
            Its logits (B, X, Y, Z, C), without class weights if they are
            taken out, and the logits of its density head (the feature
            ``density``) where the renderer asks for them, else None.

        Raises:
            ValueError: If there is no density head, or no labels to fit to.
        """
        logits = outputs.occ_logits
        free_index = getattr(self.renderer, 'free_index', -1)
        if self.calibrate and outputs.class_weight is not None:
            logits = class_frequency_logits(logits, outputs.class_weight, free_index, model)
        if self.calibrate == 'fit':
            if batch is None:
                raise ValueError("RadOccDistiller.calibrate='fit' needs labels, got no batch")
            labels, mask = (
                batch.require(name, "RadOccDistiller.calibrate='fit'")
                for name in ('gt_occ', 'mask_camera')
            )
            counted = mask.bool() & (labels != UNLABELLED)
            if not bool(counted.any()):
                raise ValueError(
                    "RadOccDistiller.calibrate='fit' takes a labelled frame in every batch (see "
                    'LabelledUnlabelledSampler), got none'
                )
            free = free_index % logits.shape[-1]
            scale, shift = fit_free_odds(
                free_log_odds(logits.detach(), free).flatten(),
                (labels == free).flatten(),
                counted.flatten(),
            )
            logits = with_free_odds(logits, scale, shift, free)
        if getattr(self.renderer, 'density', None) != 'head':
            return logits, None
        if 'density' not in outputs.features:
            raise ValueError(
                "renderer.density='head' needs the density logits of the "
                f'{model}: set {model}_features=dict(density=dict(module=..., '
                'layout=...)), tapped as (B, X, Y, Z, 1)'
            )
        return logits, outputs.features['density'].squeeze(-1)

    def _join(
        self, losses: Dict[str, Tensor], ours: Dict[str, Tensor], active: Container[str]
    ) -> Dict[str, Tensor]:
        """The student's losses and ours beside them.

        A loss that rests is logged as 0 instead of its last value, and what
        it learns itself gets a zero gradient, which DDP waits for.
        """
        resting = [
            connected_zero(parameter)
            for name, loss in self.losses.items()
            if name not in active
            for parameter in loss.parameters()
            if parameter.requires_grad
        ]
        self.returned.update(ours)
        zeros = {key: torch.zeros(()) for key in sorted(self.returned - ours.keys())}
        if resting:
            zeros['loss_distill_resting'] = torch.stack(resting).sum()
        for key in losses.keys() & (ours.keys() | zeros.keys()):
            raise ValueError(
                f'the student and RadOccDistiller.losses both return {key!r}; set loss_name of ours'
            )
        return {**losses, **ours, **zeros}

    def _generator(self, purpose: str) -> torch.Generator:
        # Seeded by the iteration: a resumed run draws the same rays. Ranks
        # see other samples and draw other rays.
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        return seeded_generator(self.seed, get_rank(), iteration, purpose)


def take_weights(student: nn.Module, checkpoint: Optional[str], modules: Sequence[str]) -> None:
    """Copies weights of equal name and shape from a teacher's checkpoint.

    Args:
        student: Model that takes them.
        checkpoint: The teacher's file.
        modules: Names of modules of the student, all of which must take
            some.

    Raises:
        ValueError: If there is no file, or a module takes nothing.
    """
    if checkpoint is None:
        raise ValueError(
            'RadOccDistiller.init_from_teacher takes a teacher '
            'with a checkpoint, teacher.checkpoint is None'
        )
    state = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    own = student.state_dict()
    state = plain_keys(state.get('state_dict', state), own)
    for module in modules:
        names = [name for name in own if name.startswith(f'{module}.')]
        taken = {
            name: state[name]
            for name in names
            if name in state and state[name].shape == own[name].shape
        }
        if not taken:
            raise ValueError(
                f'RadOccDistiller.init_from_teacher names {module!r}, of '
                f'which {checkpoint} fills none of {len(names)} entries; the '
                f'student has {[n for n, _ in student.named_children()]}'
            )
        student.load_state_dict(taken, strict=False)
        print_log(f'{module}: {len(taken)} of {len(names)} entries from {checkpoint}', 'current')


def build_teacher(
    teacher: dict, features: Optional[Dict[str, dict]] = None
) -> Union[FrozenTeacher, CachedTeacher, LabelTeacher]:
    """The teacher that runs, or the one that is read from disk.

    Args:
        teacher: Arguments of ``FrozenTeacher``; with ``cache`` also those of
            ``CachedTeacher``, or its folder alone; or ``labels`` with those
            of ``LabelTeacher``, and nothing else.
        features: Taps of its features by name.

    Raises:
        ValueError: If features are asked of a cache or of labels, or labels
            stand beside a model.
    """
    teacher = dict(teacher)
    labels = teacher.pop('labels', None)
    if labels is not None:
        if features or any(value is not None for value in teacher.values()):
            raise ValueError(
                'teacher.labels takes the place of a model and has no '
                f'features; beside it are {sorted(teacher)} and '
                f'{sorted(features or ())} (_delete_=True drops those of a '
                'base config)'
            )
        return LabelTeacher(**labels)
    cache = teacher.pop('cache', None)
    if cache is None:
        return FrozenTeacher(**teacher, features=features)
    if features:
        raise ValueError(
            'teacher.cache holds logits, no features; set '
            f'teacher.cache=None for {sorted(features)}'
        )
    cache = dict(root=cache) if isinstance(cache, str) else cache
    teacher.pop('allow_partial', None)  # of a model that is not built
    return CachedTeacher(**cache, **teacher)
