#!/usr/bin/env python3
"""Try, test and serve the pack from a fresh clone; needs Python 3.10 or later and a package registry.

  python3 dev.py demo     make pictures with the pack in a real ComfyUI, and a contact sheet below output/
  python3 dev.py test     run ruff and all tests; further arguments go to pytest, which then runs alone
  python3 dev.py serve    leave ComfyUI running with the pack, for a browser
  python3 dev.py bench    run the benchmarks

The first command makes .venv and gets ComfyUI (about 6 GB); later ones reuse both.

Whoever trains on a CPU with few or busy cores does well to set OMP_WAIT_POLICY=PASSIVE: otherwise the threads
of a step spin while they wait for each other, and a step of milliseconds can take a hundred times as long.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("dev.py needs Python 3.10 or later; this is Python %d.%d." % sys.version_info[:2])

import argparse
import os
import signal
import subprocess
import time

from dev import LOGS, ROOT, STATE, Failure
from dev.comfyui import GIVEN, ensure_comfyui, ensure_newest_front_end, existing_comfyui, make_base
from dev.environment import enter_environment
from dev.suite import compute_frugally, run_suite

LONG_BENCHMARKS = ("presets", "solver_errors")  # a quarter of an hour and more: to be asked for by name


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    # SIGTERM ends us like Ctrl-C, through every `with`; whatever else does, the guard ends the server.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if options.comfyui is not None:
            os.environ[GIVEN] = str(existing_comfyui(options.comfyui))
        enter_environment(arguments)
        return options.run(options)
    except Failure as failure:
        log = f"\nLog: {failure.log}" if failure.log else ""
        print(f"\n{failure}{log}", file=sys.stderr)
    except OSError as error:
        print(f"\nThis could not go on: {error}.\nLogs: {LOGS}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,test,serve,bench}")
    for command in (demo, test, serve, bench):
        subparser = commands.add_parser(command.__name__, allow_abbrev=False)  # pytest has a --co, too
        subparser.add_argument("--comfyui", metavar="PATH", help="use the ComfyUI in this folder instead")
        subparser.set_defaults(run=command)
    commands.choices["serve"].add_argument("--port", type=int, help="without it, any free one")
    options, options.further = parser.parse_known_args(arguments)
    if options.further and options.command != "test":
        parser.error(f"unknown arguments for {options.command}: {' '.join(options.further)}")
    return options


def demo(options: argparse.Namespace) -> int:
    from dev.demo import run_demo

    with running_server(options) as server:
        for path in run_demo(server):
            print(path)
    return 0


def serve(options: argparse.Namespace) -> int:
    with running_server(options, options.port) as server:
        print(f"ComfyUI with the pack: {server.address}  (Ctrl-C stops it; log: {server.log})", flush=True)
        while server.is_running():
            time.sleep(0.5)
    raise Failure("ComfyUI ended by itself.", server.log)


def test(options: argparse.Namespace) -> int:
    ensure_comfyui()
    ensure_newest_front_end()
    compute_frugally()
    if not options.further:
        return run_suite()
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options.further])


def bench(options: argparse.Namespace) -> int:
    scripts = [path for path in sorted(ROOT.glob("benchmarks/*.py")) if "__main__" in path.read_text()]
    scripts = [path for path in scripts if path.stem not in LONG_BENCHMARKS]
    if not scripts:
        raise Failure("There is no script in benchmarks/.")
    failed = []
    for script in scripts:
        print(f"\n== {script.name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{script.stem}"], cwd=ROOT).returncode != 0:
            failed.append(script.name)
    if failed:
        raise Failure(f"These benchmarks failed: {', '.join(failed)}.")
    return 0


def running_server(options: argparse.Namespace, port: int | None = None):
    from dev.server import ComfyServer

    comfyui = ensure_comfyui()
    print("Starting ComfyUI ...", flush=True)
    return ComfyServer(comfyui, make_base(STATE / "base"), LOGS / f"{options.command}.log", port)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
