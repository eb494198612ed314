"""Writes a student as an ONNX file, for the rig of its first test sample.

    python tools/export_onnx.py CONFIG CHECKPOINT --out student.onnx

The file is compared with the model where onnxruntime is installed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from radocc_plugin.checkpoints import load_weights
from radocc_plugin.config_file import find_config
from radocc_plugin.export import export_onnx
from radocc_plugin.registry import DATASETS, MODELS


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of a plain student')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('--out', required=True, help='the .onnx file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    config = Config.fromfile(find_config(args.config, 'config'))
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = MODELS.build(config.model).eval()
    load_weights(model, args.checkpoint)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    batch = model.data_preprocessor(pseudo_collate([dataset[0]]))
    imgs, samples = batch['inputs']['imgs'], batch['data_samples']
    export_onnx(model, imgs, samples, args.out)
    print(f'{args.out}: imgs {tuple(imgs.shape)}')
    try:
        import onnxruntime
    except ImportError:
        print('not compared with the model: pip install onnxruntime')
        return
    with torch.no_grad():
        expected = model(dict(imgs=imgs), samples).numpy()
    (got,) = onnxruntime.InferenceSession(args.out).run(None, dict(imgs=imgs.numpy()))
    same = (got.argmax(-1) == expected.argmax(-1)).mean()
    print(
        f'against the model: logits differ by {np.abs(got - expected).max()}'
        f' at most, {same:.4%} of the labels are the same'
    )


if __name__ == '__main__':
    run(main)
