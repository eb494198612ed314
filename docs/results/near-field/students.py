"""Trains one student run by spec (JSON); prints JSON results."""

import argparse
import json
import time
from near import *
from radocc_plugin.losses import ModelOutputs
from mmengine.logging import MessageHub

MessageHub.get_instance("r", **{}) if False else None

LABELLED = {360: 1, 60: 6, 24: 15, 12: 30}


class Teacher:
    def __init__(self, pool, tag, device):
        self.pool, self.tag, self.device = pool, tag, device

    def get(self, i, v):
        if self.tag == "gt":
            label = self.pool.get(i, v)["sample"].gt_occ.semantics.long()
            hot = F.one_hot(label.clamp(max=17), 18).float() * 12
            return hot.to(self.device)
        r = np.load(self.pool.path / f"{i}_{v}.t{self.tag}.npy", mmap_mode="r")
        return torch.from_numpy(np.array(r)).to(self.device).float()


KEEP = False


def distill(spec, logits, tl, item, labelled, m, d, step):
    cw = m.occ_tap["class_weight"]
    ours = d.consistency(
        ModelOutputs(logits, class_weight=cw),
        ModelOutputs(tl.view(1, 100, 100, 16, 18), class_weight=cw),
        [item["sample"]],
    )
    logs = (
        {k: float(v.detach()) for k, v in ours.items()}
        if step % 200 == 199
        else {}
    )
    lam = spec.get("lab", 1.0) if labelled else spec.get("unl", 1.0)
    if spec.get("ramp"):
        lam *= min(1.0, step / spec["ramp"])
    return lam * sum(ours.values()), logs


def run(spec, a, pools=None):
    device = torch.device(a.device)
    m = build("student", spec["seed"], device)
    if spec.get("init"):
        st = torch.load(spec["init"], map_location="cpu")
        own = m.state_dict()
        st = {
            k: v for k, v in st.items() if k in own and own[k].shape == v.shape
        }
        m.load_state_dict(st, strict=False)
    m.train()
    pools = {} if pools is None else pools

    def cached(kind, key, make):
        if (kind, key) not in pools:
            pools[kind, key] = make()
        return pools[kind, key]

    pool = cached("pool", a.pool, lambda: Pool(a.pool, device))
    val = cached("pool", a.val, lambda: Pool(a.val, device))
    teacher = cached(
        "teacher",
        a.pool + spec.get("tag", ""),
        lambda: Teacher(pool, spec.get("tag", ""), device),
    )
    steps, lr = spec["steps"], spec.get("lr", 4e-3)
    opt = torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-2, fused=True)
    sch = schedule(spec.get("schedule", "onecycle"), steps, opt, lr)
    every = LABELLED[spec["L"]]
    lab = [i for i in range(pool.n) if i % every == 0]
    unl = [i for i in range(pool.n) if i % every]
    other, other_teacher = pool, teacher
    if spec.get("sweeps"):
        other = cached("pool", spec["sweeps"], lambda: Pool(spec["sweeps"], device))
        other_teacher = cached(
            "teacher",
            spec["sweeps"] + spec.get("tag", ""),
            lambda: Teacher(other, spec.get("tag", ""), device),
        )
        unl = other.ids
    rng = np.random.RandomState(1000 + spec["seed"])
    w = m.occ_head.class_weight
    d = None
    if spec.get("losses"):
        d = MODELS.build(
            dict(
                type="radocc_plugin.RadOccDistiller",
                student=m,
                teacher=dict(model=dict(type="x"), checkpoint=None),
                renderer=dict(
                    type="radocc_plugin.VolumeRenderer",
                    point_cloud_range=PCR,
                    render_size=spec.get("render_size", (56, 100)),
                    max_rays=spec.get("max_rays", 12000),
                ),
                losses=spec["losses"],
                seed=spec["seed"],
            )
        ).to(device)
    orders = dict(lab=[], unl=[])

    def draw(which):
        src = lab if which == "lab" else unl
        if not orders[which]:
            orders[which].extend(rng.permutation(src).tolist())
        return int(orders[which].pop())

    t0 = time.time()
    curve = []
    for k in range(steps):
        if k == 20:
            t1 = time.time()
        if k == 120:
            print("ms/step", round(10 * (time.time() - t1), 1), flush=True)
        batch = []
        if spec["stream"] == "lab" or not unl:
            batch = ["lab"] * spec.get("bs", 1)
        elif spec["stream"] == "mix":
            batch = ["lab" if rng.rand() < spec.get("ratio", 0.5) else "unl"]
        elif spec["stream"] == "pair":
            batch = ["lab", "unl"]
        elif spec["stream"] == "natural":
            batch = ["lab" if rng.rand() < len(lab) / pool.n else "unl"]
        opt.zero_grad()
        for which in batch:
            labelled = which == "lab"
            source = pool if labelled else other
            i = draw(which)
            v = int(rng.randint(spec.get("aug", source.versions) if labelled else source.versions))
            item = source.get(i, v)
            if not labelled:
                item = pool.blank(item)
            inputs, samples = pool.batch(item, m.data_preprocessor)
            with torch.autocast(
                "cpu", dtype=torch.bfloat16, enabled=spec.get("bf16", False)
            ):
                volume, depth = m.extract_volume(inputs, samples)
                logits = m.occ_head(
                    m.img_bev_encoder_neck(m.img_bev_encoder_backbone(volume))
                )
            logits, depth = logits.float(), depth.float()
            loss = sum(m.img_view_transformer.loss(depth, samples).values())
            logs = {}
            if labelled:
                o = m.occ_head.loss(logits, samples)
                loss = loss + sum(o.values())
            if d is not None and spec.get("lab" if labelled else "unl", 1.0):
                MessageHub.get_current_instance().update_info("iter", k)
                dl, logs = distill(
                    spec,
                    logits,
                    (teacher if labelled else other_teacher).get(i, v),
                    item, labelled, m, d, k
                )
                loss = loss + dl
            (loss / len(batch)).backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 5.0)
        opt.step()
        sch.step()
        if (k + 1) % a.print == 0:
            print(
                spec["name"],
                spec["L"],
                spec["seed"],
                k + 1,
                round(float(loss.detach()), 3),
                {x: round(y, 3) for x, y in logs.items()},
                round(time.time() - t0),
                flush=True,
            )
        if (k + 1) % a.eval == 0 or k + 1 == steps:
            m.eval()
            e = evaluate(
                dict(t=m),
                val,
                dict(t=m.data_preprocessor),
                a.every,
                device,
                ["t"],
            )["t"]
            m.train()
            curve.append((k + 1, e))
            print(
                spec["name"],
                spec["L"],
                spec["seed"],
                k + 1,
                {
                    x: (round(e[x], 2) if isinstance(e[x], float) else e[x])
                    for x in e
                    if x != "iou"
                },
                round(time.time() - t0),
                flush=True,
            )
    res = dict(spec=spec, curve=curve, seconds=time.time() - t0)
    if spec.get("test"):
        tp = cached("pool", spec["test"], lambda: Pool(spec["test"], device))
        m.eval()
        res["test"] = evaluate(
            dict(t=m), tp, dict(t=m.data_preprocessor), 1, device, ["t"]
        )["t"]
    with open(a.out, "a") as f:
        f.write(json.dumps(res) + "\n")
    if a.save:
        torch.save(m.state_dict(), a.save)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("spec")
    p.add_argument("--pool")
    p.add_argument("--val")
    p.add_argument("--device", default="cpu")
    p.add_argument("--out")
    p.add_argument("--eval", type=int, default=400)
    p.add_argument("--every", type=int, default=2)
    p.add_argument("--print", type=int, default=200)
    p.add_argument("--save")
    p.add_argument("--keep", action="store_true")
    import logging

    a = p.parse_args()
    logging.disable(logging.INFO)
    init_default_scope("mmengine")
    torch.set_num_threads(1)
    KEEP = a.keep
    for spec in json.loads(
        a.spec if a.spec.startswith("[") else open(a.spec).read()
    ):
        run(spec, a)
