"""The sound card, through PortAudio. The one module that imports pyaudio; all of it runs on the audio thread.

Facts this rests on (measured on PyAudio 0.2.14, PortAudio 19.6): closing drops what the device still holds, so the
player writes silence first; the latency follows from frames_per_buffer alone; after an error the stream is dead, and so
is the list of devices, which is read once by Pa_Initialize.
"""

import contextlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyaudio
import soxr

from daemon.errors import AudioError
from daemon.native_noise import quiet_stderr
from daemon.values import SAMPLE_RATE, Pcm16

logger = logging.getLogger(__name__)

_RATES = (SAMPLE_RATE, 48_000, 44_100)
_BUFFER_S = 0.04
"""Asked for as frames_per_buffer; the latency comes out as twice this."""
_RESAMPLER_S = 0.04
"""What soxr holds back at most."""
_INVALID_SAMPLE_RATE = -9997
_DIRECT_CHANNELS = range(2, 9)
"""A card without a mixer in between has so many; PortAudio would leave all but the first of them silent. Devices that
say more are ALSA's plugins and sound servers, which spread one channel themselves."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """An output device as PortAudio lists it."""

    index: int
    name: str
    default_rate_hz: int
    default: bool
    channels: int


class PyAudioSink:
    """Plays on an output device.

    Args:
        device: its name, a part of it (case does not matter) or its number; empty: the system's default.
        block_samples: how much ``write`` will mostly get.
    """

    def __init__(self, device: str, block_samples: int) -> None:
        self.name = f"pyaudio {device}".rstrip()
        self.latency_s = 2 * _BUFFER_S
        self._device = device
        self._buffer_samples = max(1, round(_BUFFER_S * SAMPLE_RATE / block_samples)) * block_samples
        self._pa: Any = None
        self._stream: Any = None
        self._resampler: Any = None
        self._stereo: Pcm16 | None = None
        self._logged = ""

    def open(self) -> None:
        """Start PortAudio and a stream of 24 kHz mono, or of 48 or 44.1 kHz with a resampler where that is refused."""
        try:
            with quiet_stderr():
                self._pa = pyaudio.PyAudio()
                info = _find(_output_devices(self._pa), self._device)
                rate = self._open_stream(info)
        except OSError as err:
            self.close()
            raise AudioError(f"cannot open sound device {self._device or '(default)'}: {_reason(err)}") from err
        except AudioError:
            self.close()
            raise
        self.latency_s = float(self._stream.get_output_latency())
        self._resampler = None
        self._stereo = np.zeros((4 * self._buffer_samples, 2), np.int16) if _is_direct(info) else None
        if rate != SAMPLE_RATE:
            self.latency_s += _RESAMPLER_S
            self._resampler = soxr.ResampleStream(SAMPLE_RATE, rate, 1, dtype="int16")
        self._log(f"audio device={info.name} rate={rate} latency_ms={1000 * self.latency_s:.0f}")

    def write(self, block: Pcm16) -> None:
        """Play the block; only a device that needs the resampler makes this allocate."""
        pcm = block if self._resampler is None else self._resampler.resample_chunk(block)
        try:
            if self._stereo is None:
                self._stream.write(pcm, num_frames=len(pcm), exception_on_underflow=False)
            else:
                self._write_stereo(self._stereo, pcm)
        except OSError as err:
            raise AudioError(f"sound device {self._device or '(default)'} was lost: {_reason(err)}") from err

    def _write_stereo(self, buffer: Pcm16, pcm: Pcm16) -> None:
        """The same on both channels, int16 [S] through the buffer int16 [n, 2]."""
        for start in range(0, len(pcm), len(buffer)):
            part = pcm[start : start + len(buffer)]
            frames = buffer[: len(part)]
            frames[:, 0] = part
            frames[:, 1] = part
            self._stream.write(frames, num_frames=len(part), exception_on_underflow=False)

    def close(self) -> None:
        """Close the stream and PortAudio, so that the next ``open`` sees the devices there are then."""
        stream, self._stream = self._stream, None
        pa, self._pa = self._pa, None
        if pa is None:
            return
        with quiet_stderr():
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
            pa.terminate()

    def _open_stream(self, info: DeviceInfo) -> int:
        """Open the stream; return its rate in Hz."""
        for rate in _RATES:
            try:
                self._stream = self._pa.open(
                    rate=rate,
                    channels=2 if _is_direct(info) else 1,
                    format=pyaudio.paInt16,
                    output=True,
                    output_device_index=info.index,
                    frames_per_buffer=self._buffer_samples * rate // SAMPLE_RATE,
                )
            except OSError as err:
                if _INVALID_SAMPLE_RATE not in err.args:
                    raise
            else:
                return rate
        raise AudioError(f"sound device {info.name} takes none of {_RATES} Hz; try its plughw or dmix form")

    def _log(self, line: str) -> None:
        """Log what was opened, when it is not the same as the last time."""
        if line != self._logged:
            self._logged = line
            logger.info("%s", line)


def list_devices() -> list[DeviceInfo]:
    """The output devices there are. Not while a ``PyAudioSink`` of this process is open.

    Raises:
        AudioError: PortAudio does not start.
    """
    pa = None
    try:
        with quiet_stderr():
            pa = pyaudio.PyAudio()
            return _output_devices(pa)
    except OSError as err:
        raise AudioError(f"PortAudio does not start: {_reason(err)}") from err
    finally:
        if pa is not None:
            pa.terminate()


def _output_devices(pa: Any) -> list[DeviceInfo]:
    try:
        default = int(pa.get_default_output_device_info()["index"])
    except OSError:  # there is none
        default = -1
    infos = [pa.get_device_info_by_index(index) for index in range(pa.get_device_count())]
    return [
        DeviceInfo(
            index=int(info["index"]),
            name=str(info["name"]),
            default_rate_hz=int(info["defaultSampleRate"]),
            default=int(info["index"]) == default,
            channels=int(info["maxOutputChannels"]),
        )
        for info in infos
        if int(info["maxOutputChannels"]) > 0
    ]


def _is_direct(info: DeviceInfo) -> bool:
    return info.channels in _DIRECT_CHANNELS


def _find(devices: list[DeviceInfo], wanted: str) -> DeviceInfo:
    """Choose by exact name, number or part of the name, in this order; empty is the default device.

    Raises:
        AudioError: there is no such device; names those there are.
    """
    name = wanted.casefold()
    if name:
        found = (
            [device for device in devices if device.name.casefold() == name]
            + [device for device in devices if str(device.index) == name]
            + [device for device in devices if name in device.name.casefold()]
        )
    else:
        found = [device for device in devices if device.default]
    if found:
        return found[0]
    there = ", ".join(f"{device.index}: {device.name}" for device in devices) or "none at all"
    raise AudioError(f"no sound device {wanted or '(default)'}; there is {there}")


def _reason(err: OSError) -> str:
    """PortAudio's words, which are the one string among the arguments."""
    return next((str(arg) for arg in err.args if isinstance(arg, str)), str(err))
