"""Writes a synthetic data set in the formats of nuScenes and Occ3D."""

import argparse
import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch
from radocc_plugin.synthetic import generate


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--data-root', '--root-path', default='data/synthetic')
    parser.add_argument('--scenes-train', type=int, default=4)
    parser.add_argument('--scenes-val', type=int, default=2, help='scenes to develop on')
    parser.add_argument('--scenes-test', type=int, default=0, help='scenes for final numbers')
    parser.add_argument('--frames', type=int, default=10, help='keyframes of a scene, at 2 Hz')
    parser.add_argument('--image-size', type=int, nargs=2, metavar=('W', 'H'), default=(1600, 900))
    parser.add_argument('--seed', type=int, default=0, help='another seed, another world')
    parser.add_argument('--sweeps', type=int, default=1, help='LiDAR sweeps between two keyframes')
    parser.add_argument(
        '--image-sweeps', type=int, default=0, help='how many of these sweeps come with images'
    )
    parser.add_argument('--workers', type=int, help='scenes at a time; default one per CPU')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = vars(parse_args(argv))
    generate(args.pop('data_root'), **args)


if __name__ == '__main__':
    run(main)
