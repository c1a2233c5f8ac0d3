"""Run a command, and end it as soon as the process that started this one is gone, however it went.

The starter keeps the other end of our standard input open. When it closes that end, or dies in any way,
reading returns and the command is asked to end, and killed after the grace. Whatever the command has
started itself goes with it. Arguments: the seconds of grace, and the command.
"""

import os
import signal
import subprocess
import sys
import threading
import time


def end_group_after(child):
    child.wait()
    os.killpg(0, signal.SIGKILL)


def main(grace_seconds, command):
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    # Only after the start: a child would inherit the ignored signal.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=end_group_after, args=(child,), daemon=True).start()
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(grace_seconds)
    child.kill()
    child.wait()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
