"""A synthetic world in the on-disk formats of nuScenes and Occ3D."""

from radocc_plugin.synthetic.generate import generate

__all__ = ['generate']
