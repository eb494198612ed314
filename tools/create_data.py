"""Writes info files that our datasets read, or checks them; docs/data.md.

    python tools/create_data.py occ3d-nuscenes --data-root data/nuscenes \\
        --version v1.0-trainval [--check-only]
    python tools/create_data.py occ3d-nuscenes --data-root data/nuscenes \\
        --version v1.0-trainval --labels surroundocc
    python tools/create_data.py occ3d-waymo --data-root data/waymo
    python tools/create_data.py keyframe \\
        --data-root ../shared/data/nuscenes_frame --out work_dirs/keyframe
"""

import argparse
import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radocc_plugin.commands import run  # first: sets the environment of torch


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)

    nuscenes = commands.add_parser('occ3d-nuscenes', help='nuScenes tables and Occ3D labels')
    nuscenes.add_argument(
        '--data-root', '--root-path', required=True, help='data root, e.g. data/nuscenes'
    )
    nuscenes.add_argument(
        '--version', required=True, help='v1.0-trainval, v1.0-mini, v1.0-synthetic ...'
    )
    nuscenes.add_argument(
        '--labels',
        choices=('occ3d-nuscenes', 'surroundocc', 'openocc'),
        default='occ3d-nuscenes',
        help='whose label files must be there; the info files are the same '
        '(default: occ3d-nuscenes)',
    )
    nuscenes.add_argument(
        '--out', '--out-dir', help='folder of the info files (default: the data root)'
    )
    nuscenes.add_argument(
        '--num-sweeps', type=int, default=10, help='past LiDAR sweeps of a sample (default: 10)'
    )
    nuscenes.add_argument(
        '--sweeps-per-keyframe',
        type=int,
        default=0,
        help='unlabelled frames between a keyframe and the next, to train on (default: 0)',
    )
    nuscenes.add_argument(
        '--overwrite', action='store_true', help='replace info files of another version'
    )
    nuscenes.add_argument(
        '--splits',
        nargs='+',
        metavar='SPLIT',
        help='splits to convert or check, e.g. val (default: all)',
    )
    nuscenes.add_argument(
        '--camera-only', action='store_true', help='for a data root without LiDAR files'
    )
    nuscenes.add_argument(
        '--skip-incomplete', action='store_true', help='leave out scenes of which files are missing'
    )
    nuscenes.add_argument(
        '--check-only',
        action='store_true',
        help='check the written info files and all that they name',
    )

    waymo = commands.add_parser('occ3d-waymo', help="mmdet3d's KITTI layout and Occ3D-Waymo")
    waymo.add_argument(
        '--data-root', '--root-path', required=True, help='data root, e.g. data/waymo'
    )
    waymo.add_argument(
        '--interval',
        type=int,
        default=1,
        help='every so many frames become samples; published trainings take '
        'every fifth (default: 1)',
    )

    keyframe = commands.add_parser(
        'keyframe', help='a single keyframe; labels are made from its sweep'
    )
    keyframe.add_argument(
        '--data-root', '--root-path', required=True, help='folder of the keyframe'
    )
    keyframe.add_argument('--out', '--out-dir', required=True, help='the data root to make')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    if args.command == 'keyframe':
        from radocc_plugin.datasets.keyframe import convert_keyframe

        written = [convert_keyframe(args.data_root, args.out)]
    elif args.command == 'occ3d-waymo':
        from radocc_plugin.datasets.waymo_infos import convert_waymo

        written = convert_waymo(args.data_root, args.interval)
    else:
        # the devkit's import takes seconds, --help should not
        from radocc_plugin.datasets import info_converter

        if args.check_only:
            for path in info_converter.check_nuscenes(
                args.data_root, args.version, args.out, labels=args.labels, only=args.splits
            ):
                print(f'complete: {path}')
            return
        written = info_converter.convert_nuscenes(
            args.data_root,
            args.version,
            args.out,
            args.num_sweeps,
            args.sweeps_per_keyframe,
            overwrite=args.overwrite,
            labels=args.labels,
            camera_only=args.camera_only,
            skip_incomplete=args.skip_incomplete,
            only=args.splits,
        )
    for path in written:
        print(f'wrote {path}')


if __name__ == '__main__':
    run(main)
