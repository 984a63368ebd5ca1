"""What the user set by hand and expects to find again after a restart: volume, mute, voice, speed."""

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.values import SettingsChange, Speed

logger = logging.getLogger(__name__)


class Settings(BaseModel):
    """The settings that survive."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    volume: Annotated[int, Field(ge=0, le=100)]
    mute: bool = False
    voice: str | None = None
    """None: the bundle's default."""
    speed: Speed = 1.0

    def changed(self, change: SettingsChange) -> Self:
        """These settings with a change."""
        volume = self.volume if change.volume is None else change.volume
        return self.model_copy(
            update={
                "volume": min(100, max(0, volume + (change.volume_step or 0))),
                "mute": self.mute if change.mute is None else change.mute,
                "voice": change.voice or self.voice,
                "speed": change.speed or self.speed,
            }
        )


def load_settings(path: Path, *, volume: int) -> Settings:
    """Read the settings; a missing or damaged file gives the defaults (and a line in the log)."""
    try:
        return Settings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as err:
        logger.warning("settings %s unusable, starting from the defaults: %s", path, str(err).splitlines()[0])
    return Settings(volume=volume)


def save_settings(path: Path, settings: Settings) -> None:
    """Write the settings so that a power cut leaves the old or the new ones; failure is logged, not raised."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump(settings.model_dump(), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        logger.warning("settings not saved to %s: %s", path, err.strerror)
