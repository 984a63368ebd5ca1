"""Sound files of all formats, as samples. The one module that imports soundfile."""

from pathlib import Path
from typing import Any

import soundfile

from daemon.errors import BadRequestError
from daemon.native_noise import quiet_stderr
from daemon.values import F32

MAX_BYTES = 100 * 2**20
"""30 s of 192 kHz stereo in 64 bits are 92 MB; some formats are scanned whole before their length is known."""
MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hz: telephones have 8000, and no consonant is left below 4000; no recorder has more than 192000."""
MAX_CHANNELS = 2
"""The mean of more is no voice: their channels hold rooms, not the speaker."""
_UNKNOWN_LENGTH = 2**62
"""libsndfile gives about twice as many frames where a stream's header does not tell."""


def read_sound(path: Path, max_s: float) -> tuple[F32, int]:
    """Samples float32 [S, channels] and Hz; never more than ``max_s`` of them, whatever the file's header says.

    Raises:
        BadRequestError: it is no such sound; the message does not name the file.
    """
    try:
        if not path.is_file():
            raise _refused("not a file" if path.exists() else "no such file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise _refused(f"{size / 1e6:.0f} MB; no recording of {max_s:.0f} s is larger than {MAX_BYTES / 1e6:.0f}")
        with quiet_stderr(), soundfile.SoundFile(str(path.resolve())) as file:
            return _read_samples(file, max_s), file.samplerate
    except OSError as err:
        raise _refused(str(err.strerror)) from err
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as err:  # TypeError: headerless formats
        reason = str(getattr(err, "error_string", err)).partition("\n")[0]
        if reason.startswith("File does not exist"):  # libsndfile's words where libmpg123 gives up
            reason = "Format not recognised."
        raise _refused(f"not audio that can be read: {reason}") from err


def _read_samples(file: Any, max_s: float) -> F32:
    rate, most = file.samplerate, round(max_s * file.samplerate)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _refused(f"{rate} Hz; {MIN_RATE} to {MAX_RATE} are taken")
    if file.channels > MAX_CHANNELS:
        raise _refused(f"{file.channels} channels; mono or stereo is needed")
    if most < file.frames < _UNKNOWN_LENGTH:
        raise _refused(f"{file.frames / rate:.1f} s long; at most {max_s:.0f} s are taken")
    samples: F32 = file.read(most + 1, dtype="float32", always_2d=True)
    if len(samples) > most:
        raise _refused(f"longer than {max_s:.0f} s")
    return samples


def _refused(reason: str) -> BadRequestError:
    return BadRequestError("bad_request", reason)
