"""One task: run the features of a Python driver through the proxy and directly, then its loop of numbered writes; a JSON line for each.

A feature that works through the proxy is run directly only where that is asked for: the direct run says whether a failure is the program's own.
"""

import json
import os
import sys
import threading
import time
import traceback

THINK_S = 0.2

CLIENT = os.environ["CLIENT"]
ITEMS = f"{CLIENT}_items"
TYPES = f"{CLIENT}_types"
LOOP = f"{CLIENT}_loop"
SLEEP = f"SELECT pg_sleep(30) /* cancel {CLIENT} */"
RUNNING = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{SLEEP}'"

# The authority that has certified the proxy and the server, and one that has not: files.
TRUSTED_CA = os.environ["TRUSTED_CA"]
OTHER_CA = os.environ["OTHER_CA"]

# A feature that the driver does not have: its cell in the table says so.
NONE = None


class Endpoint:
    """Where a feature connects, and how long it waits for a notification."""

    def __init__(self, via):
        self.host = os.environ["PGHOST"]
        self.port = int(os.environ[f"{via.upper()}_PORT"])
        self.user = os.environ["PGUSER"]
        self.password = os.environ["PGPASSWORD"]
        self.database = os.environ["PGDATABASE"]
        self.notify_wait_s = int(os.environ[f"NOTIFY_WAIT_MS_{via.upper()}"]) / 1000


def run(features, open_loop):
    """Each feature raises when it does not work. open_loop(endpoint) gives insert(n), transaction(n), total() = (count, max), close()."""
    for feature, work in features.items():
        if work is NONE:
            say({"via": "proxy", "feature": feature, "ok": None})
        elif not told("proxy", feature, work) or os.environ.get("DIRECT") == "all":
            told("direct", feature, work)
    write_until_told(open_loop)


def told(via, feature, work):
    """Runs the feature, tells its outcome, and answers whether it worked."""
    outcome = outcome_of(lambda: work(Endpoint(via)))
    say({"via": via, "feature": feature, **outcome})
    return outcome["ok"]


def write_until_told(open_loop):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    acknowledged = 0

    def write():
        nonlocal acknowledged
        loop = open_loop(Endpoint("proxy"))
        while not over.is_set():
            n = acknowledged + 1
            loop.transaction(n) if n % 2 == 0 else loop.insert(n)
            acknowledged = n
            same(tuple(loop.total()), (n, n))
            if n == 2:
                say({"begun": True})
            time.sleep(THINK_S)
        loop.close()

    outcome = outcome_of(write)
    say({"via": "proxy", "feature": "cutover", **outcome, "acknowledged": acknowledged})


def outcome_of(work):
    try:
        work()
        return {"ok": True}
    except Exception:
        return {"ok": False, "detail": traceback.format_exc()[-600:]}


def same(found, expected):
    """Raises unless both are equal."""
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


def until_running(ask):
    """Waits until the server runs SLEEP; ask() runs RUNNING and gives the number."""
    while ask() != 1:
        time.sleep(THINK_S)


def say(line):
    print(json.dumps(line), flush=True)
