"""TensorBoard's view of a run: scalars, pictures, and final metrics by flags."""

import struct
import sys
import time
from pathlib import Path

from codebase.machine.files import one_line


class Events:
    """TensorBoard events of one run. Trouble with them never ends the run.

    They are written at once, by tensorboardX's EventsWriter: the thread of its SummaryWriter dies
    on a full disk, and then the process waits for it for ever.

    Args:
        folder: where they are written
        from_step: int: events of this step and later ones, of an interrupted run, are superseded
    """

    def __init__(self, folder: Path, from_step: int = 0):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event, self._folder, self._writer = Event, folder, None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._give_up(error)
        if from_step:
            self._write(step=from_step, file_version="brain.Event:2")
            self._write(step=from_step, session_log=SessionLog(status=SessionLog.START))

    def _write(self, **content) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write_event(self._event(wall_time=time.time(), **content))
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        print(f"warning: no more TensorBoard events: {one_line(error)}", file=sys.stderr)

    def scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Record each tag's value."""
        from tensorboardX import summary

        for tag, value in scalars.items():
            self._write(step=step, summary=summary.scalar(tag, value))

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Record a picture."""
        from tensorboardX.proto.summary_pb2 import Summary

        width, height = struct.unpack(">2I", png[16:24])  # as the PNG's first chunk has them
        image = Summary.Image(encoded_image_string=png, width=width, height=height)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def hyperparameters(self, flags: dict, metrics: dict[str, float]) -> None:
        """Record what TensorBoard's hparams tab compares, in a file of its own."""
        from tensorboardX import summary

        with Events(self._folder / "hparams") as events:
            for part in summary.hparams(flags, metrics):
                events._write(summary=part)
            events.scalars(0, metrics)

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *exception) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)
