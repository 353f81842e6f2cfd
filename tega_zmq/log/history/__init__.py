"""The history: every version of every root, on the disk. `format` says how it stands there."""

from tega_zmq.log.history.format import FOLDER, frames
from tega_zmq.log.history.history import History, open_history
from tega_zmq.log.history.keeping import Policy

__all__ = ["FOLDER", "History", "Policy", "frames", "open_history"]
