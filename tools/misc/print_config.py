"""Prints a config with its bases and overrides resolved.

python tools/misc/print_config.py CONFIG [--cfg-options KEY=VALUE ...]
"""

import argparse
import sys
from pathlib import Path

# The folder above holds the package, in a clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from radocc_plugin.commands import run  # first: sets the environment of torch

from mmengine.config import DictAction

from radocc_plugin.config_file import load_config
from radocc_plugin.fileio import write_atomically


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, from here or of the package')
    parser.add_argument('--out', help='writes it to this file instead')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, e.g. data_root=DIR'
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    text = load_config(args.config, options=args.cfg_options).pretty_text
    if args.out is None:
        print(text)
    else:
        write_atomically(args.out, text)


if __name__ == '__main__':
    run(main)
