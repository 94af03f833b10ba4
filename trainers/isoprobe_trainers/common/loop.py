"""Go through the epochs of a training that may be killed: progress, resume file, time spent.

What a step does is told where the training is; this counts, shows and saves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from isoprobe.errors import CheckpointError
from isoprobe_trainers.common.training import Clock, load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: seconds between resume files
SAVE_EVERY = 30.0


class Loop:
    """Epochs, or steps, that are left of a training.

    Args:
        name: of the training, beside the progress bar.
        total: how many there are.
        unit: what they are called.
        identity: plain values that tell this training from others.
        outputs: files that it will write.
        resume_file: what it goes on from.
        resume: go on from the resume file, if there is one.
        overwrite: replace outputs that are there.
        save_every: seconds between resume files, at least.
        leads: whether this process shows and saves; False in all but one of several.

    Attributes:
        done: how many lie behind.
        saved: state that the resume file held; None at a start.

    Raises:
        CheckpointError: when an output is there, or the resume file belongs to another training or
            cannot be read.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        identity: Mapping[str, Any],
        outputs: Sequence[Path],
        resume_file: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        save_every: float = SAVE_EVERY,
        leads: bool = True,
    ) -> None:
        resume = resume and resume_file.exists()
        existing = [path for path in outputs if path.exists()]
        if existing and not (overwrite or resume):
            raise CheckpointError(
                f"{existing[0]} exists already; choose another folder or overwrite"
            )
        self.name, self.total, self.unit, self.identity = name, total, unit, dict(identity)
        self.resume_file, self.save_every, self.leads = resume_file, save_every, leads
        self.saved: Any = None
        self.done, self._clock = 0, Clock()
        if resume:
            self._restore(load_state(resume_file))
        self._written, self._bar = time.monotonic(), tqdm(disable=True)

    def _restore(self, held: Mapping[str, Any]) -> None:
        if held.get("identity") != self.identity:
            raise CheckpointError(
                f"{self.resume_file} belongs to another training, of other models or another "
                "schedule; give the same options as then, or remove it"
            )
        self.done, self.saved = int(held["done"]), held["state"]
        self._clock = Clock(held["spent"])

    def __iter__(self) -> Iterator[int]:
        """Count on from what is done until all is; whoever loops calls :meth:`passed`."""
        hidden = None if self.leads else True
        shown = {"total": self.total, "initial": self.done, "unit": self.unit, "disable": hidden}
        with tqdm(desc=self.name, **shown) as self._bar:
            while self.done < self.total:
                yield self.done

    def passed(
        self,
        count: int,
        state: Callable[[], Any],
        *,
        shown: Mapping[str, str] | None = None,
        save: bool = False,
    ) -> None:
        """Say that some are done; write the resume file where it is due.

        Args:
            count: how many.
            state: gives what the training needs to go on from here: tensors and plain values.
            shown: figures beside the progress bar.
            save: write the resume file now, whenever the last one was written.

        Raises:
            CheckpointError: when it cannot be written.
        """
        self.done += count
        self._bar.update(count)
        if shown:
            self._bar.set_postfix(shown)
        due = time.monotonic() - self._written > self.save_every and self.done < self.total
        if self.leads and (save or due):
            held = {"done": self.done, "spent": self.spent(), "state": state()}
            save_state(self.resume_file, {"identity": self.identity, **held})
            self._written = time.monotonic()

    def spent(self) -> dict[str, float]:
        """Seconds so far, by the wall clock and of all threads on the processor."""
        return self._clock.spent()

    def finish(self) -> None:
        """Remove the resume file: everything is written."""
        self.resume_file.unlink(missing_ok=True)
