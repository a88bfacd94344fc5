"""Which ffmpeg is run."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

from control.errors import ConfigurationError
from control.settings import MediaSettings

_SETTING = "AFTERLIVE_MEDIA_FFMPEG"


def ffmpeg_path(settings: MediaSettings) -> str:
    """Absolute path of the ffmpeg to run: the one of the settings, else the one the package imageio-ffmpeg brings.

    A bare name in the settings is looked for on PATH. Raises ConfigurationError.
    """
    if not settings.ffmpeg:
        return _packaged()
    found = shutil.which(settings.ffmpeg)
    if found is None:
        raise ConfigurationError(setting=_SETTING, reason=f"{settings.ffmpeg} is not a program that can be run")
    return str(Path(found).absolute())


@lru_cache(maxsize=1)
def _packaged() -> str:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise ConfigurationError(
            setting=_SETTING, reason="it is not set, and the package imageio-ffmpeg brings no ffmpeg for this machine"
        ) from error
