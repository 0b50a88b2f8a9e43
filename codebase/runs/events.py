"""Record a run for TensorBoard: scalars, pictures, flags and final metrics."""

import struct
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class Events:
    """TensorBoard events of one run.

    tensorboardX's EventsWriter writes each event at once. Its SummaryWriter uses a thread that dies
    if the disk is full, and then the process waits for that thread forever.

    Args:
        folder: folder for the files
        from_step: int: first step; an interrupted run's events from this step on are superseded
    """

    def __init__(self, folder: Path, from_step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._writer = folder, EventsWriter(str(folder / "events"))
        if from_step:
            self._write(step=from_step, file_version="brain.Event:2")
            self._write(step=from_step, session_log=SessionLog(status=SessionLog.START))

    def _write(self, **content) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **content))
        self._writer.flush()

    def scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Record each tag's value."""
        for tag, value in scalars.items():
            self._write(step=step, summary=summary.scalar(tag, value))

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Record a picture."""
        width, height = struct.unpack(">2I", png[16:24])  # as the PNG's first chunk has them
        image = Summary.Image(encoded_image_string=png, width=width, height=height)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def hyperparameters(self, flags: dict, metrics: dict[str, float]) -> None:
        """Record the flags and metrics for TensorBoard's hparams tab, in a separate file."""
        events = Events(self._folder / "hparams")
        for part in summary.hparams(flags, metrics):
            events._write(summary=part)
        events.scalars(0, metrics)
