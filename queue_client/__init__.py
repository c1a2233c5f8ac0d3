"""Works through many prompts on one or several ComfyUI servers; `python -m pit queue` in the pack's folder.

It talks to the network, which nothing in the published pack does: it stands beside the pack, knows nothing
of it, and needs only Python's standard library.
"""


class Problem(Exception):
    """What is wrong and what to do about it, in sentences for people."""
