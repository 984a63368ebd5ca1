"""What the MQTT connection needs to be trusted: TLS files and the password."""

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config import user_path
from daemon.config_sections import MqttConfig
from daemon.errors import ConfigError

if TYPE_CHECKING:
    import ssl


def tls_context(config: MqttConfig) -> "ssl.SSLContext | None":
    """TLS as configured; None without a CA.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    if not config.tls_ca:
        if config.tls_cert or config.tls_key:
            raise ConfigError("mqtt.tls_cert and tls_key need tls_ca: without it there is no TLS")
        return None
    import ssl  # noqa: PLC0415 (OpenSSL, for those that use TLS)

    try:
        context = ssl.create_default_context(cafile=user_path(config.tls_ca))
        if config.tls_cert:
            key = user_path(config.tls_key) if config.tls_key else None
            # An encrypted key is an error, not a question on the terminal.
            context.load_cert_chain(user_path(config.tls_cert), key, password=lambda: "")
    except OSError as err:  # SSLError is one
        names = ", ".join(str(user_path(name)) for name in (config.tls_ca, config.tls_cert, config.tls_key) if name)
        raise ConfigError(f"mqtt tls files {names}: {err.strerror or err}") from err
    return context


def read_password(config: MqttConfig, credentials: Path | None) -> str | None:
    """The first line of password_file, or of mqtt-password in systemd's credentials folder.

    Raises:
        ConfigError: password_file cannot be read.
    """
    path = user_path(config.password_file) if config.password_file else None
    if path is None and credentials is not None and (credentials / "mqtt-password").exists():
        path = credentials / "mqtt-password"
    if path is None:
        return None
    try:
        if path.exists() and not path.is_file():  # to read a FIFO would wait for its writer
            raise ConfigError(f"mqtt.password_file {path}: not a regular file")
        return path.read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
    except OSError as err:
        raise ConfigError(f"mqtt.password_file {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"mqtt.password_file {path}: not UTF-8: {err.reason} at byte {err.start}") from err
