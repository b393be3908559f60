"""Build hook: the Makefile compiles, the wheel ships what it made."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ArtifactsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `make artifacts` with the Python that builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tag the wheel: stable ABI from 3.11, this platform."""
        subprocess.run(["make", "artifacts", f"PYTHON={sys.executable}"], cwd=self.root, check=True)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
