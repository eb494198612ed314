import json
import sys
from pathlib import Path
from collections import defaultdict
import statistics as st

rows = defaultdict(list)
secs = []
for p in sorted(Path(sys.argv[1]).glob("*.result")):
    for line in p.read_text().splitlines():
        r = json.loads(line)
        s = r["spec"]
        e = (
            r["test"]
            if "test" in r and "--test" in sys.argv
            else r["curve"][-1][1]
        )
        rows[s["L"], s["name"]].append((s["seed"], e))
        secs.append(r["seconds"])
base = {L: dict(v) for (L, n), v in rows.items() if n == "base"}
print("runs", len(secs), "mean s", round(sum(secs) / max(len(secs), 1), 1))
for (L, n), v in sorted(rows.items(), key=lambda x: (-x[0][0], x[0][1])):
    m = lambda k: round(st.mean(e[k] for _, e in v), 2)
    d = [e["miou"] - base[L][s]["miou"] for s, e in v if s in base.get(L, {})]
    print(
        L,
        f"{n:9}",
        len(v),
        "miou",
        m("miou"),
        "d",
        " ".join(f"{x:+.1f}" for x in d),
        "| nofl",
        m("noflat"),
        "surf",
        m("surf"),
        "veh",
        m("veh"),
        "small",
        m("small"),
        "geo",
        m("geo"),
        "nll",
        round(st.mean(e["nll"] for _, e in v), 3),
        "n>1",
        m("above1"),
    )
err = list(Path(sys.argv[1]).glob("*.error"))
if err:
    print("ERRORS", len(err), err[0].read_text()[-600:])
