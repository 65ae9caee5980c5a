"""Cases with the C++ client in the Python package `rocketmq`. Each runs in a process of its own, since a fault in
native code ends the process; the driver beside this directory reads the lines that begin with RESULT."""
import argparse
import os
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor


def one(opts):
    """A single case: its result goes to the standard output, last."""
    from cases import CASES
    from env import Env, Failed
    body = CASES[opts.one][0]
    env = Env(opts.namesrv, opts.stock == "true", opts.one, opts.suffix)
    error = ""
    try:
        body(env)
    except Failed as e:
        error = str(e)
    except Exception:  # noqa: what a client throws is a failed case
        error = traceback.format_exc()
    print(" ".join(("FAILED" if error else "ok", error, ", ".join(env.notes))).replace("\n", " "), flush=True)
    closing = threading.Thread(target=env.close, daemon=True)
    closing.start()
    closing.join(10)
    # Not by returning: the client's threads that still run would meet destructors.
    os._exit(1 if error else 0)


PRINTING = threading.Lock()


def result(*fields):
    # `print` writes a line and its end apart: two threads would mix theirs, and one result would be lost.
    with PRINTING:
        print("RESULT", *fields, sep="\t", flush=True)


def run(opts, name, seconds, stock_differs):
    if stock_differs and opts.stock == "true":
        result("stock-differs", name, opts.label, "0", stock_differs)
        return True
    argv = [sys.executable, os.path.abspath(__file__), "cases", "--one", name]
    for key in ("namesrv", "stock", "suffix"):
        argv += ["--" + key, getattr(opts, key)]
    start = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    try:
        out, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        out, _ = child.communicate()
    took = time.monotonic() - start
    # The C++ client writes to the standard output as well.
    verdicts = [line for line in out.splitlines() if line.startswith(("ok ", "FAILED "))]
    if verdicts:
        status, _, text = verdicts[-1].partition(" ")
    else:
        status, text = "FAILED", f"not done after {seconds} s" if took >= seconds else f"the process ended with {child.returncode}"
    result(status, name, opts.label, f"{took:.1f}", " ".join(text.split()))
    return status == "ok"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("command", choices=("cases",))
    p.add_argument("--namesrv", required=True)
    p.add_argument("--stock", default="false")
    p.add_argument("--slow", default="false")
    p.add_argument("--parallel", type=int, default=8)
    p.add_argument("--case")
    p.add_argument("--label", default="python")
    p.add_argument("--suffix", default=str(time.time_ns()))
    p.add_argument("--one", help="run this case in this process")
    opts = p.parse_args()
    if opts.one:
        return one(opts)
    from cases import CASES
    wanted = opts.case.split(",") if opts.case else list(CASES)
    with ThreadPoolExecutor(opts.parallel) as pool:
        good = list(pool.map(lambda name: run(opts, name, *CASES[name][1:]), [n for n in CASES if n in wanted]))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
