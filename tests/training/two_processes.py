"""Trains as one of two processes, of which the second cancels, or sees another folder; run by accelerate.

Arguments: cache, folder of the run, "cancel" or "elsewhere". Each process writes its last step and its error
to a file beside the folder.
"""
from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import begin
from pit.training.launch import data_parallel, leave
from pit.training.recipes import RunSettings

RECIPE = replace(RECOMMENDED, steps=9, batch=2)


class Cancelled(BaseException):
    pass


def main() -> None:
    cache, folder, fault = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rank, reached = data_parallel(cpu=True).process_index, []

    def on_step(progress):
        reached.append(progress.step)
        if fault == "cancel" and rank == 1 and progress.step == 4:
            raise Cancelled

    seen = folder.with_name("elsewhere") if fault == "elsewhere" and rank == 1 else folder
    try:
        begin(cache, Sizes(32, 1, 2), RECIPE, RunSettings(seen), cpu=True).run(on_step)
    except (ValueError, KeyboardInterrupt, Cancelled) as error:
        told = [reached[-1:], type(error).__name__, str(error)]
        folder.with_name(f"{fault} {rank}.json").write_text(json.dumps(told), encoding="utf-8")
    finally:
        leave()


if __name__ == "__main__":
    main()
