"""Parity of whole models with the published ones: forward, losses, gradients.

Sizes, seeds and tolerances are those of the cases.
"""

import pytest
import torch
from torch import nn

from radocc_plugin.losses.occupancy import masked_cross_entropy
from tests.support.golden_detector import Recorder, build_detector, make_batch

pytestmark = pytest.mark.slow  # full-size forwards on the CPU


def build_filled(golden, case):
    """The model of a case with its weights, in eval mode."""
    model = build_detector(case)
    golden.check_keys(published_keys(model, case), case)
    fill(golden, case, model)
    return model.eval()


def published_keys(model, case):
    """The state under the case's names: dev2.1's detector has no head."""
    in_detector = 'final_conv.conv.weight' in case.state_dict_shapes
    return {
        name.replace('occ_head.', '') if in_detector else name: value
        for name, value in model.state_dict().items()
    }


def fill(golden, case, model):
    golden.fill_(
        published_keys(model, case), case.config['weight_seed'], gains=case.config['gains']
    )


def run(model, inputs, samples):
    """Logits, losses and what the modules returned."""
    recorder = Recorder(
        model,
        'img_backbone',
        'img_neck',
        'img_view_transformer',
        'img_bev_encoder_backbone',
        'img_bev_encoder_neck',
        'occ_head',
    )
    losses = model(inputs, samples, mode='loss')
    return recorder, losses


def gradients(model, losses):
    """L2 norm of the gradient of the summed losses in each parameter."""
    model.zero_grad()
    sum(losses.values()).backward()
    norms = {
        name: parameter.grad.norm()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    norms.update({name.replace('occ_head.', '', 1): norm for name, norm in norms.items()})
    return norms


def compare_gradients(golden, case, prefix, norms):
    names = [n for n in case.output_names() if n.startswith(prefix)]
    assert names
    for name in names:
        golden.compare(case, name, norms[name[len(prefix) :]])


def compare_forward(golden, case, recorder, losses):
    (logits,) = recorder['occ_head']
    *previous, (lifted, depth) = recorder['img_view_transformer']
    bev_in = dict(bev_in=lifted)
    if previous:
        levels = recorder['img_backbone'][-1]
        bev_in = dict(
            layer1=levels[0], layer4=levels[-1], lifted_prev=previous[0][0], lifted_curr=lifted
        )
    for name, value in dict(
        bev_in,
        neck=recorder['img_neck'][-1],
        depth=depth,
        bev_out=recorder['img_bev_encoder_neck'][0],
        logits=logits,
        **losses,
    ).items():
        golden.compare(case, name, value)
    if 'argmax' in case.output_names():
        golden.compare(case, 'argmax', logits.argmax(-1).to(torch.uint8))


@pytest.mark.parametrize(
    'name', ['bevdet_occ_full', 'flashocc_r50_full', 'flashocc_bevdetocc_full']
)
def test_golden_forward_and_losses(golden, name):
    case = golden.case(name)
    model = build_filled(golden, case)
    inputs, samples = make_batch(case)
    needs_gradient = any(n.startswith('grad/') for n in case.output_names())
    with torch.set_grad_enabled(needs_gradient):
        recorder, losses = run(model, inputs, samples)
    compare_forward(golden, case, recorder, losses)
    if needs_gradient:
        compare_gradients(golden, case, 'grad/', gradients(model, losses))
    if 'loss_occ_balanced' in case.output_names():
        balanced = build_detector(case, class_balance=True).occ_head
        logits = recorder['occ_head'][0].detach()
        golden.compare(case, 'loss_occ_balanced', balanced.loss(logits, samples)['loss_occ'])
        golden.compare(case, 'loss_occ_nomask', masked_cross_entropy(logits, case.input('labels')))


def test_golden_gradients_and_statistics(golden):
    case = golden.case('bevdet_occ_grad')
    model = build_filled(golden, case)
    inputs, samples = make_batch(case)
    recorder, losses = run(model, inputs, samples)
    compare_forward(golden, case, recorder, losses)
    norms = gradients(model, losses)
    compare_gradients(golden, case, 'grad/', norms)
    total = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    golden.compare(case, 'grad_total', total)

    fill(golden, case, model)
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    losses = model(inputs, samples, mode='loss')
    for name, value in losses.items():
        golden.compare(case, f'train/{name}', value)
    state = model.state_dict()
    for name in case.output_names():
        if name.endswith(('running_mean', 'running_var')):
            golden.compare(case, name, state[name[len('train/') :]])
    # stem on three frames, deeper stages and depth net on two, encoder on one
    counters = (
        'img_backbone.bn1',
        'img_backbone.layer4.2.bn3',
        'img_view_transformer.depth_net.bn',
        'pre_process_net.layers.0.0.conv1.bn',
        'img_bev_encoder_neck.conv.bn',
    )
    golden.compare(
        case,
        'train/num_batches_tracked',
        torch.stack([state[f'{name}.num_batches_tracked'] for name in counters]),
    )
    compare_gradients(golden, case, 'train/grad/', gradients(model, losses))
