from __future__ import annotations

from real.fixtures import ca_file, local_model, v2ray

__all__ = ["ca_file", "local_model", "v2ray"]
