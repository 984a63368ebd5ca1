"""Announces the Wyoming server on the local network (mDNS), as Home Assistant looks for it."""

import asyncio
import logging
import socket

from zeroconf import Error, InterfaceChoice
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from daemon.log import RateLimited

_SERVICE = "_wyoming._tcp.local."
_RETRY_S = 60.0
_MDNS_GROUP = ("224.0.0.251", 5353)

warnings = RateLimited(logging.getLogger(__name__), 3600.0)


async def announce(host: str, port: int) -> None:
    """Be found until cancelled; a network that is not there yet is waited for.

    Args:
        host: the address that is listened on; of all addresses (0.0.0.0, ::), the one that the network sees is told.
        port: listened on.
    """
    name = f"crier-{socket.gethostname().split('.')[0][:50]}.{_SERVICE}"
    while True:
        try:
            # One interface, by the kernel's choice: to list them takes a kind of socket that the service may not open.
            async with AsyncZeroconf(interfaces=InterfaceChoice.Default) as zeroconf:  # its end says goodbye
                address = _own_address() if host in ("0.0.0.0", "::") else host
                info = AsyncServiceInfo(_SERVICE, name, parsed_addresses=[address], port=port)
                await zeroconf.async_register_service(info, allow_name_change=True)
                await asyncio.get_running_loop().create_future()
        except (OSError, Error) as err:
            warnings.log(logging.WARNING, "event=zeroconf_failed error=%s", err or type(err).__name__)
            await asyncio.sleep(_RETRY_S)


def _own_address() -> str:
    """The address that packets to the group come from. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(_MDNS_GROUP)
        return str(sock.getsockname()[0])
