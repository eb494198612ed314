"""Writes spec files: specs.py QUEUE STAGE [key=value ...]"""

import json
import sys
from pathlib import Path

q = Path(sys.argv[1])
stage = sys.argv[2]
q.mkdir(parents=True, exist_ok=True)
opt = dict(a.split("=", 1) for a in sys.argv[3:])
steps = int(opt.get("steps", 1600))
pool, val, test = opt["pool"], opt["val"], opt.get("test")
VOX = "radocc_plugin.RenderedVoxelConsistency"


def vox(**k):
    return dict(v=dict(type=VOX, loss_weight=1.0, **k))


RDC = dict(
    depth=dict(
        type="radocc_plugin.RenderedDepthConsistency", loss_weight=0.05
    ),
    semantics=dict(
        type="radocc_plugin.RenderedSemanticConsistency",
        loss_weight=0.2,
        kl_weight=1.0,
        affinity_weight=0.0,
    ),
)
OBJ = list(range(11))
METHODS = dict(
    base={},
    control=dict(stream="mix"),
    paper=dict(losses=RDC),
    v1=dict(losses=vox(labelled_factor=0.5)),
    v1q=dict(losses=vox(labelled_factor=0.2)),
    v1m=dict(losses=vox(labelled_factor=0.5, observed="mask_camera")),
    hard=dict(losses=vox(labelled_factor=0.0, hard=True), lab=0.0),
    soft0=dict(losses=vox(labelled_factor=0.0), lab=0.0),
    nocb=dict(losses=vox(labelled_factor=0.5, class_balance=False)),
    light=dict(losses=vox(labelled_factor=0.5, cap=None)),
    regions=dict(losses=vox(labelled_factor=0.5, objects=OBJ)),
    gate=dict(losses=vox(labelled_factor=0.5, gate=True)),
    surf=dict(
        losses=dict(
            **vox(labelled_factor=0.5),
            s=dict(
                type=VOX,
                loss_weight=0.3,
                labelled_factor=0.5,
                light="ended",
                occupied_only=True,
                min_light=0.1,
                loss_name="loss_surface",
            ),
        )
    ),
    init=dict(init=opt.get("teacher")),
    initv1=dict(init=opt.get("teacher"), losses=vox(labelled_factor=0.5)),
)


def spec(method, L, seed, **k):
    s = dict(
        name=method,
        L=L,
        seed=seed,
        steps=steps,
        stream="lab",
        pool=pool,
        val=val,
    )
    m = dict(METHODS[method])
    if L != 360 and m.get("losses"):
        s["stream"] = "mix"
    s.update(m)
    s.update(k)
    if test:
        s["test"] = test
    return s


out = []
if stage == "dev0":
    out = [spec("base", L, seed) for seed in (0, 1) for L in (360, 12, 60)]
elif stage == "dev":
    for seed in (0, 1):
        out += [
            spec("v1", 12, seed),
            spec("hard", 12, seed),
            spec("v1", 360, seed),
            spec("v1q", 360, seed),
            spec("v1", 60, seed),
            spec("paper", 360, seed),
            spec("paper", 12, seed),
        ]
        out += [
            spec("hard", 60, seed),
            spec("nocb", 60, seed),
            spec("nocb", 360, seed),
            spec("regions", 360, seed),
            spec("regions", 60, seed),
            spec("gate", 360, seed),
            spec("soft0", 60, seed),
            spec("light", 60, seed),
            spec("light", 360, seed),
        ]
        out += [
            spec("surf", 60, seed),
            spec("surf", 360, seed),
            spec("v1m", 360, seed),
            spec("control", 60, seed, losses=None),
            spec("control", 12, seed, losses=None),
            spec("init", 360, seed),
            spec("initv1", 360, seed),
            spec("paper", 60, seed),
        ]
elif stage == "list":
    for item in json.loads(opt["runs"]):
        out.append(spec(*item[:3], **(item[3] if len(item) > 3 else {})))
n0 = int(opt.get("start", 0))
for n, s in enumerate(out):
    (q / f"{n0 + n:04d}.tmp").write_text(json.dumps(s))
    (q / f"{n0 + n:04d}.tmp").rename(q / f"{n0 + n:04d}.spec")
print(len(out), "specs")
