from radocc_plugin.losses.occupancy import masked_cross_entropy

__all__ = ['masked_cross_entropy']
