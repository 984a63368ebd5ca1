"""Every error Crier raises on purpose, with the exit code or the wire code it becomes."""

from typing import ClassVar


class SpeechError(Exception):
    """Base of all errors that are raised on purpose; the message is one line a user can act on."""

    exit_code: ClassVar[int] = 70
    """The process's exit code when the error ends it (sysexits)."""


class ConfigError(SpeechError):
    """config.toml is unusable: the key, what was found, what is allowed."""

    exit_code = 78


class ModelError(SpeechError):
    """A bundle is missing, damaged or not of the shape its manifest says."""

    exit_code = 66


class EngineError(SpeechError):
    """llama.cpp or onnxruntime failed; the utterance is lost, the contexts are rebuilt."""


class RemoteError(SpeechError):
    """Speech that another machine was making broke off."""


class StoreError(SpeechError):
    """What was to be kept (a recorded voice) cannot be written or removed."""

    exit_code = 73


class AudioError(SpeechError):
    """The sound device or the output file cannot be opened or has gone away."""

    exit_code = 74


class UnreachableError(SpeechError):
    """The daemon does not answer on its socket (raised by the client)."""

    exit_code = 69


class BadRequestError(SpeechError):
    """A request that cannot be served; answered on the wire, never fatal.

    Attributes:
        code: the error code of the reply (PROTOCOL.md): bad_request, too_long, empty, unknown_voice, queue_full,
            bad_json, unknown_op.
        request_id: the id the request gave itself, where it could be read.
    """

    exit_code = 65

    def __init__(self, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
