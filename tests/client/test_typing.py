from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_public_names_are_typed(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    cache = ROOT / ".mypy_cache"  # of the checks, where they have run: without it this takes seconds
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'src'}\nfollow_imports = silent\n")
    out, err, status = api.run(
        ["--config-file", str(config), "--cache-dir", str(cache), str(Path(__file__).with_name("typing_ok.py"))]
    )
    assert (status, err) == (0, ""), out
