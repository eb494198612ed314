"""Near-field research harness: pool of samples, teacher, many students on one stream."""

import argparse
import json
import math
import os
import sys
import time
import pickle

os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(os.environ.get("RADOCC_ROOT", "."))
sys.path.insert(0, str(ROOT))
import radocc_plugin.models  # noqa
import radocc_plugin.datasets, radocc_plugin.structures, radocc_plugin.rendering  # noqa
from radocc_plugin.registry import MODELS, DATASETS
from radocc_plugin.structures import OccData, OccDataSample

NEAR = dict(
    x=(-20, 20, 0.8),
    y=(-20, 20, 0.8),
    z=(-1, 5.4, 0.8),
    depth=(1.0, 25.0, 1.0),
)
PCR = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)
CLASSES = (
    "others",
    "barrier",
    "bicycle",
    "bus",
    "car",
    "construction_vehicle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "trailer",
    "truck",
    "driveable_surface",
    "other_flat",
    "sidewalk",
    "terrain",
    "manmade",
    "vegetation",
)
SURF = [11, 12, 13, 14, 15, 16]
VEH = [3, 4, 5, 9, 10]
SMALL = [1, 2, 6, 7, 8, 0]


def config(kind):
    path = dict(
        student="projects/BEVDetOcc/configs/bevdet-occ_tiny_1xb1-3e_synthetic.py",
        teacher="projects/OccTeacher/configs/occ-teacher-fusion_tiny_1xb1-3e_synthetic.py",
    )[kind]
    cfg = Config.fromfile(str(ROOT / path))
    cfg.merge_from_dict({"model.img_view_transformer.grid_config": NEAR})
    if kind == "teacher":
        cfg.merge_from_dict({"model.pts_voxel_encoder.point_cloud_range": PCR})
    return cfg


def pool_one(args):
    kind, data_root, ann, indices, versions, seed, out = args
    torch.set_num_threads(1)
    cfg = config("teacher")
    init_default_scope("mmengine")
    ds = (
        cfg.train_dataloader if kind == "train" else cfg.val_dataloader
    ).dataset
    ds.data_root = data_root
    ds.ann_file = ann
    ds.point_cloud_range = PCR
    sweeps = bool(os.environ.get("SWEEPS"))
    if sweeps:
        ds.sweeps_per_keyframe = 1
    dataset = DATASETS.build(ds)
    for i in indices:
        if sweeps and dataset.get_data_info(i)["labelled"]:
            continue
        for v in range(versions):
            np.random.seed((seed * 1000003 + i * 101 + v) % 2**31)
            import random

            random.seed(i * 7 + v)
            item = dataset[i]
            s = item["data_samples"]
            meta = {
                k: s.metainfo[k]
                for k in (
                    "token",
                    "cam2img",
                    "cam2ego",
                    "img_aug_mat",
                    "bda_mat",
                    "ori_shape",
                    "img_shape",
                    "scene_name",
                    "sample_idx",
                )
            }
            pts = item["inputs"]["points"].numpy()
            keep = (np.abs(pts[:, 0]) < 21) & (np.abs(pts[:, 1]) < 21)
            np.savez(
                f"{out}/{i}_{v}.npz",
                img=item["inputs"]["img"].numpy(),
                points=pts[keep].astype(np.float32),
                depth=s.gt_depth.numpy().astype(np.float16),
                sem=s.gt_occ.semantics.numpy(),
                cam=s.gt_occ.mask_camera.numpy(),
            )
            pickle.dump(meta, open(f"{out}/{i}_{v}.pkl", "wb"))
    return len(indices)


def prepare(a):
    from concurrent.futures import ProcessPoolExecutor

    out = Path(a.pool)
    out.mkdir(parents=True, exist_ok=True)
    cfg = config("teacher")
    ds = (
        cfg.train_dataloader if a.split == "train" else cfg.val_dataloader
    ).dataset
    ds.data_root = a.data
    ds.ann_file = a.ann
    if os.environ.get("SWEEPS"):
        ds.sweeps_per_keyframe = 1
        ds.point_cloud_range = PCR
    built = DATASETS.build(ds)
    n = len(built)
    chunks = np.array_split(np.arange(n), max(a.workers * 4, 1))
    jobs = [
        (a.split, a.data, a.ann, c.tolist(), a.versions, 0, str(out))
        for c in chunks
    ]
    if a.workers > 1:
        with ProcessPoolExecutor(a.workers) as ex:
            list(ex.map(pool_one, jobs))
    else:
        for j in jobs:
            pool_one(j)
    ids = sorted({int(f.stem.split("_")[0]) for f in out.glob("*.npz")})
    json.dump(
        dict(n=n, versions=a.versions, ids=ids), open(out / "index.json", "w")
    )
    print("pool", n, a.versions)


class Pool:
    def __init__(self, path, device, points=False, keep=True):
        self.path = Path(path)
        self.device = device
        self.points = points
        self.__dict__.update(json.load(open(self.path / "index.json")))
        self.cache = {} if keep else None

    def get(self, i, v):
        key = (i, v)
        if self.cache is not None and key in self.cache:
            return self.cache[key]
        f = np.load(self.path / f"{i}_{v}.npz")
        meta = pickle.load(open(self.path / f"{i}_{v}.pkl", "rb"))
        s = OccDataSample(metainfo=meta)
        d = self.device
        s.gt_occ = OccData(
            semantics=torch.from_numpy(f["sem"]).to(d),
            mask_camera=torch.from_numpy(f["cam"]).to(d),
        )
        s.gt_depth = torch.from_numpy(f["depth"]).float().to(d)
        item = dict(img=torch.from_numpy(f["img"]).to(d), sample=s)
        if self.points:
            item["points"] = torch.from_numpy(f["points"]).to(d)
        if self.cache is not None:
            self.cache[key] = item
        return item

    def blank(self, item):
        if "blank" not in item:
            s = item["sample"]
            b = OccDataSample(metainfo=dict(s.metainfo.items()))
            b.gt_occ = OccData(
                semantics=torch.full_like(s.gt_occ.semantics, 255),
                mask_camera=torch.zeros_like(s.gt_occ.mask_camera),
            )
            b.gt_depth = s.gt_depth
            item["blank"] = dict(img=item["img"], sample=b)
        return item["blank"]

    def batch(self, item, pre):
        data = pre(
            dict(
                inputs=dict(
                    img=[item["img"]],
                    **(
                        {"points": [item["points"]]}
                        if "points" in item
                        else {}
                    ),
                ),
                data_samples=[item["sample"]],
            )
        )
        return data["inputs"], data["data_samples"]


def schedule(name, total, opt, lr):
    if name == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            opt, lr, total_steps=total, pct_start=0.3
        )
    return torch.optim.lr_scheduler.LambdaLR(
        opt,
        lambda k: (
            min(1, 0.1 + 0.9 * k / 20)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * k / total)))
        ),
    )


def evaluate(models, pool, pres, every, device, names):
    """Confusions etc for several models over the same frames."""
    conf = {
        n: torch.zeros(18, 18, dtype=torch.long, device=device) for n in names
    }
    nll = {n: [0.0, 0] for n in names}
    for i in range(0, pool.n, every):
        item = pool.get(i, 0)
        for n in names:
            m = models[n]
            inputs, samples = pool.batch(item, pres[n])
            with torch.no_grad():
                logits = m(inputs, samples, mode="tensor")[0]
            s = item["sample"].gt_occ
            msk = s.mask_camera.bool()
            lab = s.semantics[msk].long()
            lg = logits[msk].float()
            pred = lg.argmax(-1)
            conf[n] += torch.bincount(lab * 18 + pred, minlength=324).view(
                18, 18
            )
            # nll on calibrated
            w = m.occ_head.class_weight
            if w is not None:
                lg = lg - w.log()
            nll[n][0] += F.cross_entropy(lg, lab, reduction="sum").item()
            nll[n][1] += len(lab)
    out = {}
    for n in names:
        c = conf[n].double().cpu()
        iou = c.diag() / (c.sum(0) + c.sum(1) - c.diag()).clamp_min(1)
        present = c.sum(1) > 0

        def mean(ids):
            ids = [k for k in ids if present[k]]
            return 100 * iou[ids].mean().item() if ids else float("nan")

        geo = c[:17, :17].sum() / (c.sum() - c[17, 17])
        out[n] = dict(
            miou=mean(range(17)),
            surf=mean(SURF),
            veh=mean(VEH),
            small=mean(SMALL),
            geo=100 * geo.item(),
            nll=nll[n][0] / max(nll[n][1], 1),
            noflat=mean([k for k in range(17) if k != 12]),
            above1=int((iou[:17] > 0.01).sum()),
            iou=[round(100 * x, 2) for x in iou[:17].tolist()],
        )
    return out


def seed_all(s):
    import random

    random.seed(s)
    np.random.seed(s)
    torch.manual_seed(s)


def build(kind, seed, device):
    seed_all(seed)
    m = MODELS.build(config(kind).model)
    m.init_weights()
    return m.to(device)


def train_teacher(a):
    device = torch.device(a.device)
    m = build("teacher", a.seed, device).train()
    pool = Pool(a.pool, device, points=True, keep=device.type == "cuda")
    val = Pool(a.val, device, points=True)
    opt = torch.optim.AdamW(m.parameters(), lr=4e-3, weight_decay=1e-2)
    sch = schedule("onecycle", a.steps, opt, 4e-3)
    rng = np.random.RandomState(a.seed)
    order = []
    t0 = time.time()
    for k in range(a.steps):
        if not order:
            order = list(rng.permutation(pool.n))
        item = pool.get(int(order.pop()), int(rng.randint(pool.versions)))
        inputs, samples = pool.batch(item, m.data_preprocessor)
        losses = m(inputs, samples, mode="loss")
        loss = sum(losses.values())
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 5.0)
        opt.step()
        sch.step()
        if (k + 1) % 200 == 0:
            if (k + 1) % 400 == 0 or k + 1 == a.steps:
                m.eval()
                e = evaluate(
                    dict(t=m),
                    val,
                    dict(t=m.data_preprocessor),
                    2,
                    device,
                    ["t"],
                )["t"]
                m.train()
            else:
                e = {}
            print(
                k + 1,
                {x: round(float(v), 3) for x, v in losses.items()},
                {x: e[x] for x in e if x != "iou"},
                round(time.time() - t0),
                flush=True,
            )
    torch.save(m.state_dict(), a.out)


def dump_teacher(a):
    """Teacher log-probabilities (raw, weighted) and light of every pool entry."""
    device = torch.device(a.device)
    m = MODELS.build(config("teacher").model)
    m.load_state_dict(torch.load(a.ckpt, map_location="cpu"))
    m.to(device).eval()
    pool = Pool(a.pool, device, points=True, keep=False)
    with torch.no_grad():
        for i in pool.ids[a.part :: a.parts]:
            for v in range(pool.versions):
                path = pool.path / f"{i}_{v}.t{a.tag}.npy"
                if path.exists():
                    continue
                item = pool.get(i, v)
                inputs, samples = pool.batch(item, m.data_preprocessor)
                lg = m(inputs, samples, mode="tensor")[0].float()
                np.save(path, lg.half().cpu().numpy())
    print("dumped")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    s = p.add_subparsers(dest="cmd")
    q = s.add_parser("prepare")
    q.add_argument("--data")
    q.add_argument("--ann")
    q.add_argument("--split")
    q.add_argument("--pool")
    q.add_argument("--versions", type=int, default=4)
    q.add_argument("--workers", type=int, default=1)
    q = s.add_parser("teacher")
    q.add_argument("--pool")
    q.add_argument("--val")
    q.add_argument("--steps", type=int, default=1200)
    q.add_argument("--seed", type=int, default=0)
    q.add_argument("--device", default="cpu")
    q.add_argument("--out")
    q = s.add_parser("dump")
    q.add_argument("--pool")
    q.add_argument("--ckpt")
    q.add_argument("--tag", default="")
    q.add_argument("--device", default="cpu")
    q.add_argument("--part", type=int, default=0)
    q.add_argument("--parts", type=int, default=1)
    import logging

    a = p.parse_args()
    logging.disable(logging.INFO)
    init_default_scope("mmengine")
    torch.set_num_threads(1)
    dict(prepare=prepare, teacher=train_teacher, dump=dump_teacher)[a.cmd](a)
