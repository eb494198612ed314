"""Writes a synthetic data set in the formats of nuScenes and Occ3D."""

import argparse

from radocc_plugin.synthetic import generate


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--root-path', default='data/synthetic')
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
    return parser.parse_args()


if __name__ == '__main__':
    args = vars(parse_args())
    generate(args.pop('root_path'), **args)
