"""The Wyoming protocol: one client's requests for speech, which is returned to it and not played.

Everything here runs on the server's event loop.
"""

import asyncio
import contextlib
import logging
from importlib.metadata import version
from time import monotonic
from typing import Any, Protocol, TypeVar

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncEventHandler
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeTextFormat,
    SynthesizeVoice,
)

from daemon.engine.voices import plain_language
from daemon.errors import BadRequestError, SpeechError
from daemon.inputs.messages import build_request
from daemon.inputs.wyoming_streams import BoundedReader, GarbageError, Speech
from daemon.log import RateLimited
from daemon.ports import Renderer, RenderTicket, Speaker
from daemon.values import SAMPLE_RATE

logger = logging.getLogger(__name__)
warnings = RateLimited(logger, 60.0)
"""A scanner of ports must not fill the log."""

STALL_S = 30.0
"""A client that takes nothing of what it asked for this long is disconnected."""
_FORMAT = {"rate": SAMPLE_RATE, "width": 2, "channels": 1}
_Request = TypeVar("_Request", Synthesize, SynthesizeStart)


class RenderingSpeaker(Speaker, Renderer, Protocol):
    """A daemon that can be asked for audio."""


class Conversation(AsyncEventHandler):
    """One client. Its requests are served one after the other.

    Args:
        reader: of a connection that was just accepted.
        writer: of the same.
        speaker: makes the speech.
        max_unsent_bytes: audio that may wait until the client takes it; with more it is disconnected.

    Attributes:
        dropped: it is being disconnected.
        idle_since: when it was last heard of, or its last request was over.
    """

    def __init__(
        self, reader: BoundedReader, writer: asyncio.StreamWriter, speaker: RenderingSpeaker, max_unsent_bytes: int
    ) -> None:
        super().__init__(reader, writer)
        self._input = reader
        self._speaker = speaker
        self._max_unsent_bytes = max_unsent_bytes
        self._num_events = 0
        self._ticket: RenderTicket | None = None
        self._streaming = False
        self._sending: asyncio.Task[None] | None = None
        self.dropped = False
        self.idle_since = monotonic()
        reader.on_left = self._cancel

    @property
    def busy(self) -> bool:
        """Whether speech is being made for it, or on the way."""
        return self._sending is not None and not self._sending.done()

    async def run(self) -> None:
        """Serve until the client leaves or is refused."""
        garbage = ""
        try:
            await super().run()
        except (EOFError, OSError):
            pass  # left
        except (AttributeError, KeyError, RecursionError, TypeError) as err:  # where the library takes a header apart
            garbage = f"not a header: {err!r}"
        except GarbageError as err:
            garbage = str(err)
        else:
            if self._input.num_headers > self._num_events:  # the library takes bad JSON for the end
                garbage = "not a message in JSON"
        if garbage:
            warnings.log(logging.WARNING, "event=wyoming_garbage client=%s error=%s", self.peer, garbage)
        await self._closed()

    async def _closed(self) -> None:
        try:
            async with asyncio.timeout(STALL_S):
                await self.writer.wait_closed()
        except OSError:
            self.writer.transport.abort()

    @property
    def peer(self) -> str:
        """Who it is, for the log."""
        return str(self.writer.get_extra_info("peername") or "local")

    async def disconnect(self) -> None:
        """No more events come."""
        self._cancel()

    def drop(self) -> None:
        """Disconnect it at once."""
        self.dropped = True
        self.writer.transport.abort()

    def _cancel(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
        if self._sending is not None:
            self._sending.cancel()

    async def handle_event(self, event: Event) -> bool:
        """Obey one event; false ends the conversation."""
        self._num_events += 1
        self.idle_since = monotonic()
        try:
            await self._obey(event)
        except SpeechError as err:
            await self.refuse(err)
            return False
        except OSError:
            return False
        except Exception:
            logger.exception("bug in the wyoming input")
            return False
        return not self._input.left

    async def refuse(self, err: SpeechError) -> None:
        """Say what is wrong. The connection is closed then: Home Assistant would wait for audio otherwise."""
        code = err.code if isinstance(err, BadRequestError) else "failed"
        warnings.log(logging.WARNING, "event=wyoming_refused client=%s code=%s error=%s", self.peer, code, err)
        with contextlib.suppress(OSError):
            await self.write_event(Error(text=str(err), code=code).event())

    async def write_event(self, event: Event) -> None:
        """Send an event.

        Raises:
            OSError: the client has left, or takes nothing.
        """
        async with asyncio.timeout(STALL_S):
            await super().write_event(event)

    async def _obey(self, event: Event) -> None:
        """Unknown events are for others, and left alone."""
        if Describe.is_type(event.type):
            await self.write_event(self._info().event())
        elif Ping.is_type(event.type):
            await self.write_event(Pong(text=_data(event).get("text")).event())
        elif Synthesize.is_type(event.type):
            if not self._streaming:  # inside a stream it repeats the text, for servers that cannot stream
                await self._begin(_parse(Synthesize, event), more=False)
        elif SynthesizeStart.is_type(event.type):
            if self._streaming:
                raise BadRequestError("bad_request", "synthesize-start: the stream before has no synthesize-stop")
            self._streaming = True
            await self._begin(_parse(SynthesizeStart, event), more=True)
        elif SynthesizeChunk.is_type(event.type):
            self._stream(event).append(_text(event))
        elif SynthesizeStop.is_type(event.type):
            self._stream(event).end()
            self._streaming = False

    def _stream(self, event: Event) -> RenderTicket:
        if not self._streaming or self._ticket is None:
            raise BadRequestError("bad_request", f"{event.type} without synthesize-start")
        return self._ticket

    async def _begin(self, wanted: Synthesize | SynthesizeStart, *, more: bool) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])
        if self._input.left:
            return
        text = "" if isinstance(wanted, SynthesizeStart) else wanted.text
        if wanted.text_format == SynthesizeTextFormat.SSML and not more and not str(text).lstrip().startswith("<"):
            raise BadRequestError("bad_request", "SSML: the text does not begin with <speak>")
        request = build_request({"text": text, **self._voice(wanted.voice)}, more=more)
        speech = Speech(self._max_unsent_bytes, self._overflow)
        self._ticket = self._speaker.render(request, speech, more=more)
        self._sending = asyncio.create_task(self._send(speech, streaming=more))

    def _voice(self, wanted: SynthesizeVoice | None) -> dict[str, Any]:
        """The voice as keys of a request; one is looked for where only its language is asked for."""
        if wanted is None:
            return {}
        if wanted.name is not None or wanted.language is None:
            return {"voice": wanted.name}
        language = _family(str(wanted.language))
        spoken = {voice.name for voice in self._speaker.voices() if _family(voice.language) == language}
        chosen = self._speaker.state().voice
        return {"lang": wanted.language, "voice": chosen if chosen in spoken else min(spoken, default=None)}

    def _overflow(self) -> None:
        warnings.log(logging.WARNING, "event=slow_client_dropped client=%s", self.peer)
        self.drop()

    async def _send(self, speech: Speech, *, streaming: bool) -> None:
        """The answer to one request."""
        try:
            await self._send_audio(speech, streaming=streaming)
        except SpeechError as err:
            await self.refuse(err)
            self.writer.close()
        except TimeoutError:
            self._overflow()
        except OSError:
            self.drop()
        except Exception:
            logger.exception("bug in the wyoming input")
            self.drop()
        finally:
            self.idle_since = monotonic()

    async def _send_audio(self, speech: Speech, *, streaming: bool) -> None:
        pcm = await _first(speech, streaming=streaming)
        if pcm is not None or not streaming:
            await self.write_event(AudioStart(**_FORMAT).event())
            while pcm is not None:
                await self.write_event(AudioChunk(audio=pcm, **_FORMAT).event())
                pcm = await speech.take()
            await self.write_event(AudioStop().event())
        if streaming:
            await self.write_event(SynthesizeStopped().event())

    def _info(self) -> Info:
        maker = Attribution(name="Crier", url="")
        same: dict[str, Any] = {"attribution": maker, "installed": True, "version": version("crier")}
        voices = [
            TtsVoice(name=voice.name, description=voice.description, languages=[voice.language], **same)
            for voice in self._speaker.voices()
        ]
        program = TtsProgram(
            name="crier", description="Crier", voices=voices, supports_synthesize_streaming=True, **same
        )
        return Info(tts=[program])


async def _first(speech: Speech, *, streaming: bool) -> bytes | None:
    """The first samples. A stream in which nothing was to be said ends without any; elsewhere that is an error."""
    try:
        return await speech.take()
    except BadRequestError as err:
        if streaming and err.code == "empty":
            return None
        raise


def _family(language: str) -> str:
    return plain_language(language).split("-")[0]


def _parse(kind: type[_Request], event: Event) -> _Request:
    try:
        return kind.from_event(event)
    except (AttributeError, KeyError, TypeError) as err:
        raise BadRequestError("bad_request", f"{event.type}: not as the protocol has it: {err!r}") from err


def _data(event: Event) -> dict[str, Any]:
    if not isinstance(event.data, dict):
        raise BadRequestError("bad_request", f"{event.type}: data must be an object")
    return event.data


def _text(event: Event) -> str:
    text = _data(event).get("text")
    if not isinstance(text, str):
        raise BadRequestError("bad_request", f"{event.type}: text is missing")
    return text
