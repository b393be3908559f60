"""Opening an AF_XDP socket: for FastPort, for the gateway's workers and for the generator."""

from __future__ import annotations

from typing import Any

from xdpgw._native import ffi, lib
from xdpgw.fast_errors import Wanted, refuse_socket

__all__ = ["MODES", "open_xsk"]

MODES = {"auto": lib.XG_XSK_AUTO, "copy": lib.XG_XSK_COPY, "zerocopy": lib.XG_XSK_ZERO_COPY}
"""By the words that users write."""


def open_xsk(umem: Any, opts: Any, *, port: str, wanted: Wanted, beside: Any = ffi.NULL) -> Any:
    """Open a socket.

    Args:
        umem: struct xg_umem *.
        opts: struct xg_xsk_opts *; its queue is the one that errors name.
        port: name of the port, for errors.
        wanted: what the socket was to be, for errors.
        beside: struct xg_xsk * of the same UMEM on the same queue; NULL for the first one.

    Returns:
        struct xg_xsk *, the caller's to close.

    Raises:
        PrivilegeError, FastpathError: as `refuse_socket` says.
    """
    call, out = ffi.new("const char **"), ffi.new("struct xg_xsk **")
    err = lib.xg_xsk_open(umem, opts, beside, call, out)
    if err < 0:
        said = ffi.string(call[0]).decode()
        refuse_socket(err, said, port=port, queue=opts.queue, wanted=wanted)
    return out[0]
