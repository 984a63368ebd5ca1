"""crierd: arguments, environment, exit codes."""

import argparse
import faulthandler
import gc
import os
import signal
import sys
from pathlib import Path

from daemon import log
from daemon.config import load_config
from daemon.errors import SpeechError
from daemon.places import find_places


def main(argv: list[str] | None = None) -> int:
    """Run the daemon; returns the exit code (sysexits, DESIGN section 8)."""
    parser = argparse.ArgumentParser(prog="crierd", description="Speaks what arrives over MQTT and a Unix socket.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="config.toml; without it, the user's or /etc/crier")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version  # noqa: PLC0415 (slow to import)

        print(f"crierd {version('crier')}")
        return 0
    gc.disable()  # until all is loaded (App.run): nothing of it is garbage, and looking for that takes 50 ms
    stderr = os.dup(2)  # 2 itself is redirected while PortAudio, which may abort, opens the device
    faulthandler.enable(stderr)
    faulthandler.register(signal.SIGUSR1, stderr)
    places = find_places(os.environ)
    path = args.config or places.config
    try:
        config = load_config(path)
        log.setup(config.log.level, environ=os.environ)
        from daemon.app import App, Surroundings  # noqa: PLC0415 (the engine loads only for a sound configuration)

        return App(config, Surroundings(path, places, os.environ, os.getpid())).run()
    except SpeechError as err:
        print(f"crierd: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
