"""xdpgw: an XDP packet filter and gateway for Linux, controlled from Python."""

__all__ = ["__version__"]

__version__ = "0.1.0"
