import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from radocc_plugin.evaluation.tta import OccTTAModel, tta_pipeline, unflip
from radocc_plugin.structures import OccData, OccDataSample

X, Y, Z, C = 4, 3, 2, 18
FLIP_X, FLIP_Y = np.diag([-1.0, 1, 1, 1]), np.diag([1.0, -1, 1, 1])


class Student(BaseModel):
    """Its logits are its inputs, through a module that can be tapped."""

    occ_tap = dict(module='head')

    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def forward(self, inputs, data_samples, mode='tensor'):
        logits = self.head(torch.stack(list(inputs)))
        for sample, labels in zip(data_samples, logits.argmax(-1)):
            sample.pred_occ = OccData(semantics=labels.to(torch.uint8))
        return data_samples


def logits(seed):
    return torch.randn(X, Y, Z, C, generator=torch.Generator().manual_seed(seed))


def sample(bda_mat):
    return OccDataSample(metainfo=dict(token='t', bda_mat=bda_mat))


def run(views):
    """Merged sample of (logits in the view's frame, bda_mat) of each view."""
    data = dict(
        inputs=[[view] for view, _ in views], data_samples=[[sample(bda)] for _, bda in views]
    )
    (merged,) = OccTTAModel(Student()).test_step(data)
    return merged


def test_one_plain_view_predicts_what_the_model_does():
    merged = run([(logits(0), np.eye(4))])
    assert torch.equal(merged.pred_occ.semantics.long(), logits(0).argmax(-1))


def test_flipped_views_average_in_the_plain_frame():
    """Views that agree after mirroring give the labels of one of them."""
    plain = logits(1)
    merged = run(
        [
            (plain, np.eye(4)),
            (plain.flip(0), FLIP_X),
            (plain.flip(1), FLIP_Y),
            (plain.flip(0, 1), FLIP_X @ FLIP_Y),
        ]
    )
    assert torch.equal(merged.pred_occ.semantics.long(), plain.argmax(-1))
    assert np.array_equal(merged.bda_mat, np.eye(4))


def test_probabilities_are_averaged_not_logits():
    first, second = logits(2), 5 * logits(3)
    merged = run([(first, np.eye(4)), (second.flip(1), FLIP_Y)])
    mean = (first.softmax(-1) + second.softmax(-1)) / 2
    assert torch.equal(merged.pred_occ.semantics.long(), mean.argmax(-1))
    assert not torch.equal(mean.argmax(-1), (first + second).argmax(-1))


def test_occupied_labels_are_the_likeliest_but_free():
    volume = logits(4)
    volume[..., 17] = 100
    merged = run([(volume, np.eye(4))])
    assert (merged.pred_occ.semantics == 17).all()
    assert torch.equal(merged.pred_occ.semantics_occupied.long(), volume[..., :17].argmax(-1))


def test_views_without_a_plain_one_are_an_error():
    with pytest.raises(ValueError, match='must leave the ego frame'):
        run([(logits(0), FLIP_X)])


@pytest.mark.parametrize('bda', [np.diag([1.0, 1, -1, 1]), np.diag([1.1, 1.1, 1.1, 1])])
def test_other_ego_augmentation_is_an_error(bda):
    with pytest.raises(ValueError, match='mirrored in x and y only'):
        unflip(logits(0), bda)


def test_distiller_is_tapped_at_its_student():
    class Wrapper(BaseModel):
        def __init__(self):
            super().__init__()
            self.student = Student()

        def forward(self, inputs, data_samples, mode='tensor'):
            return self.student(inputs, data_samples, mode)

    data = dict(inputs=[[logits(0)]], data_samples=[[sample(np.eye(4))]])
    (merged,) = OccTTAModel(Wrapper()).test_step(data)
    assert torch.equal(merged.pred_occ.semantics.long(), logits(0).argmax(-1))


TEST_PIPELINE = [
    dict(type='radocc_plugin.LoadMultiViewImages'),
    dict(type='radocc_plugin.AugmentMultiViewImages', input_size=(8, 16)),
    dict(type='radocc_plugin.LoadOcc3D'),
    dict(type='radocc_plugin.PackOccInputs'),
]


@pytest.mark.parametrize(
    'views,number',
    [(['flip_x', 'flip_y'], 4), (['flip_x', 'flip_image'], 4), (['scale'], 3), (['identity'], 1)],
)
def test_pipeline_makes_every_combination(views, number):
    pipeline = tta_pipeline(TEST_PIPELINE, views)
    counts = [len(step) for step in pipeline[-1]['transforms']]
    assert np.prod(counts) == number
    assert [step['type'] for step in pipeline] == [
        'radocc_plugin.LoadMultiViewImages',
        'TestTimeAug',
    ]
    # labels are loaded before the ego frame is mirrored; the first is plain
    images, labels, ego_frame, _ = [step[0] for step in pipeline[-1]['transforms']]
    assert labels['type'] == 'radocc_plugin.LoadOcc3D'
    assert images['flip_prob'] == 0
    assert ego_frame['flip_x_prob'] == ego_frame['flip_y_prob'] == 0


@pytest.mark.parametrize(
    'pipeline,views,message',
    [
        (TEST_PIPELINE, ['turn'], r"views take .* got \['turn'\]"),
        (TEST_PIPELINE[:1], ['flip_x'], 'takes a test pipeline with one'),
    ],
)
def test_wrong_views_and_pipelines_are_errors(pipeline, views, message):
    with pytest.raises(ValueError, match=message):
        tta_pipeline(pipeline, views)


def test_a_model_that_streams_takes_one_view(monkeypatch):
    monkeypatch.setattr(Student, 'is_streaming', True, raising=False)
    run([(logits(0), np.eye(4))])
    with pytest.raises(ValueError, match='Student carries its past'):
        run([(logits(0), np.eye(4)), (logits(0).flip(0), FLIP_X)])
