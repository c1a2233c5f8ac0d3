"""The command line: what to run how often and where, progress, and a summary."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from . import Problem
from .journal import Journal
from .part_sets import PartSet, plain_name, read_part_sets
from .progress import Progress, summary
from .server import Server
from .work import Work, Worker, follow
from .workflow import (
    SETS_NODE,
    Graph,
    fingerprint,
    read_workflow,
    sets_nodes,
    varied_inputs,
    with_settings,
)

JOURNAL = "journal.sqlite"
MOST_TRIES = 2
ENDINGS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # as shells call a program that Ctrl-C has ended
ENDING_SECONDS = 60  # for the servers to answer once more at the end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("workflow", type=Path, help="workflow in API format: in ComfyUI's menu, Export (API)")
    add("--parts", type=Path, metavar="DIR",
        help="folder with a subfolder of part pictures for each set, for the node Load Part Sets")
    add("--count", type=int, default=1, metavar="N", help="runs, of each set if there are some (default: 1)")
    add("--set", action="append", default=[], dest="settings", metavar="NODE.INPUT=VALUE",
        help="another value of an input; NODE is an id, a title or a type; may be given several times")
    add("--vary", action="append", default=[], metavar="NODE.INPUT",
        help="an input that counts up by one from run to run (default: all seeds)")
    add("--server", nargs="+", action="extend", metavar="HOST:PORT",
        help="one or several ComfyUI servers (default: 127.0.0.1:8188)")
    add("--output", type=Path, metavar="DIR",
        help="folder for results and the journal (default: here, the workflow's name with _results)")
    add("--ahead", type=int, default=2, metavar="N", help="prompts in each server's queue (default: 2)")
    add("--patience", type=float, default=60.0, metavar="SECONDS",
        help="how long a server may not answer before its work goes to others (default: 60)")
    add("--again", action="store_true", help="try again what has failed in earlier runs")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code; what is wrong is one message on stderr."""
    progress = Progress()
    try:
        work, servers = prepared(args, progress)
    except (Problem, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        return driven(work, servers, progress)
    except KeyboardInterrupt:  # once more, while the servers were told
        return INTERRUPTED
    finally:
        work.journal.close()


def prepared(args: argparse.Namespace, progress: Progress) -> tuple[Work, list[Server]]:
    """What is to do, with its journal, and the servers.

    Raises:
        Problem: an argument, a file or the journal does not fit.
        OSError: the output folder cannot be made.
    """
    if min(args.count, args.ahead) < 1 or args.patience < 0:
        raise Problem("Expected --count and --ahead of at least 1 and --patience of at least 0.")
    servers = [Server(each) for each in dict.fromkeys(args.server or ["127.0.0.1:8188"])]
    graph, fixed = with_settings(read_workflow(args.workflow), args.settings)
    varied = varied_inputs(graph, args.vary, fixed, args.count)
    sets = {} if args.parts is None else sets_for(graph, args.parts)
    output = args.output or Path(f"{args.workflow.stem}_results")
    output.mkdir(parents=True, exist_ok=True)
    work = Work(
        graph, varied, sets, Journal(output / JOURNAL, fingerprint(graph, varied)), output,
        plain_name(args.workflow.stem), min(MOST_TRIES, len(servers)), args.ahead, args.patience,
        progress.tell,
    )
    try:
        plan(work, args)
    except BaseException:
        work.journal.close()
        raise
    return work, servers


def sets_for(graph: Graph, folder: Path) -> dict[str, PartSet]:
    """The sets in a folder. Raises Problem if there is none, or no node in the graph that reads them."""
    if not sets_nodes(graph):
        raise Problem(
            f"Expected a node Load Part Sets ({SETS_NODE}) in the workflow for --parts, got none. See the "
            "template a_folder_of_part_sets."
        )
    return read_part_sets(folder)


def plan(work: Work, args: argparse.Namespace) -> None:
    """Write down what is to do. Raises Problem if a set of an earlier run is gone."""
    if args.again:
        work.journal.try_failed_again()
    work.journal.plan(work.sets or [""], args.count)
    missing = [name for name in work.journal.unfinished_names() if name and name not in work.sets]
    if missing:
        raise Problem(
            f"Expected the sets that the journal still has to do in {args.parts}, but these are gone: "
            f"{', '.join(missing[:8])}. Put them back, or choose another --output."
        )


def driven(work: Work, servers: list[Server], progress: Progress) -> int:
    """Do the work, and say how it went; the exit code."""
    began = time.monotonic()
    workers = [Worker(work, server) for server in servers]
    work.journal.give_back_of_others([server.name for server in servers])
    # A service manager ends programs by SIGTERM, and a script has what it starts beside itself ignore
    # SIGINT: both must cancel what is queued just as Ctrl-C does.
    before = {each: signal.signal(each, signal.default_int_handler) for each in ENDINGS}
    interrupted = False
    try:
        for worker in workers:
            worker.start()
        follow(work, workers, lambda: progress.draw(work.journal))
    except KeyboardInterrupt:
        interrupted = True
        progress.tell("canceling what is queued ...")
    finally:
        work.stop.set()
        for worker in workers:
            worker.join(ENDING_SECONDS)
        for each, handler in before.items():
            signal.signal(each, handler)
    progress.draw(work.journal)
    for fault in work.faults:
        progress.tell(f"error: {fault}")
    print(summary(work, workers, time.monotonic() - began))
    if interrupted:
        return INTERRUPTED
    counts = work.journal.counts()
    return 0 if counts["done"] == sum(counts.values()) and not work.faults else 1
