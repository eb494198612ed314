from radocc_plugin.engine.ema import MEGVIIEMA, MEGVIIEMAHook

__all__ = ['MEGVIIEMA', 'MEGVIIEMAHook']
