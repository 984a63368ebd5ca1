"""KV caches of voices as files: bounded in bytes, the least recently used leaves first, none trusted unseen."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from daemon.cache_folder import CacheFolder
from daemon.engine.llama import LlamaModel
from daemon.errors import EngineError

logger = logging.getLogger(__name__)


class KvFiles:
    """A folder of KV states.

    Args:
        folder: where; None keeps nothing.
        max_bytes: of all files together; a state that alone is larger is not kept.
        identity: of the model and of everything else that a state depends on.
    """

    def __init__(self, folder: Path | None, max_bytes: int, identity: str) -> None:
        self._files = None
        if folder is not None and max_bytes > 0:
            self._files = CacheFolder(folder, max_bytes, suffix=".kv", magic=b"crier-kv-1\n")
        self._identity = identity

    def restore(self, model: LlamaModel, key: str, num_positions: int, prefill: Callable[[], object]) -> None:
        """Put the state ``key`` of ``num_positions`` into an empty KV cache: from its file, else by ``prefill``.

        Raises:
            EngineError: the prefill failed.
        """
        if self._files is None:
            prefill()
            return
        name = hashlib.sha256(f"{self._identity}\0{key}\0{num_positions}".encode()).hexdigest()
        state = self._files.read(name)
        if state is not None:
            try:
                model.restore(state, num_positions)
            except EngineError as err:
                logger.warning("kv cache rebuilt: %s: %s", name, err)
                model.rewind(0)
            else:
                return
        prefill()
        self._files.write(name, [model.state()])
