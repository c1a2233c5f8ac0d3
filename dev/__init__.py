"""What dev.py is made of: the environment, a real ComfyUI, a server of it, and the demo.

Nothing in here belongs to the published pack.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".comfyui"
LOGS = STATE / "logs"


class Failure(Exception):
    """What went wrong in one plain sentence, and the log that tells more about it."""

    def __init__(self, sentence: str, log: Path | None = None):
        super().__init__(sentence)
        self.log = log
