"""Worker: pulls specs from a queue folder until stop; one student at a time."""

import json
import os
import sys
import time
import traceback
from pathlib import Path
import students
from students import *


def main():
    import logging

    logging.disable(logging.INFO)
    q = Path(sys.argv[1])
    device = sys.argv[2]
    me = sys.argv[3]
    init_default_scope("mmengine")
    torch.set_num_threads(1)
    students.KEEP = True
    if device == "cuda":
        torch.zeros(1, device="cuda")
    pools = {}

    class A:
        pass

    while True:
        if (q / "stop").exists():
            return
        done = False
        for path in sorted(q.glob("*.spec")):
            claim = path.with_suffix(".claim")
            try:
                os.mkdir(claim)
            except FileExistsError:
                continue
            done = True
            spec = json.loads(path.read_text())
            a = A()
            a.pool = spec["pool"]
            a.val = spec["val"]
            a.device = device
            a.out = str(q / f"{path.stem}.result")
            a.eval = spec.get("eval", 800)
            a.every = spec.get("every", 2)
            a.print = 200
            a.save = spec.get("save")
            try:
                with open(q / f"{path.stem}.log", "w") as f:
                    sys.stdout = f
                    students.run(spec, a, pools)
                    f.flush()
            except Exception:
                (q / f"{path.stem}.error").write_text(traceback.format_exc())
            finally:
                sys.stdout = sys.__stdout__
            break
        if not done:
            time.sleep(0.3)


main()
