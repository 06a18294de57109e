from __future__ import annotations

from unbroken.core.advice import LATEST, SilentCut, advice


def silences(*seconds: float, pinged: bool = False, http_version: str = "") -> list[SilentCut]:
    return [SilentCut(at=0.0, silent=silent, pinged=pinged, http_version=http_version) for silent in seconds]


class TestAdvice:
    def test_there_is_none_without_a_cluster(self) -> None:
        assert advice([]) == ""
        assert advice(silences(60, 60.2)) == ""
        assert advice(silences(5, 20, 60, 61, 62, 200, 400)) == ""

    def test_names_the_silence_and_what_prevents_it(self) -> None:
        found = advice(silences(60, 60.4, 61, 12))
        assert found.startswith("something on the way cuts idle connections after about 60 s: raise that limit")
        assert found.endswith("or use an https endpoint that speaks HTTP/2")
        assert "turn PING on" in advice(silences(60, 60.4, 61, 12, http_version="HTTP/2"))

    def test_does_not_advise_ping_where_it_was_kept_up(self) -> None:
        cuts = [*silences(60, 61, http_version="HTTP/2"), *silences(60.2, pinged=True, http_version="HTTP/2")]
        found = advice(cuts)
        assert "after about 60 s, although PING kept them busy" in found
        assert "turn PING on" not in found

    def test_a_ping_elsewhere_says_nothing_of_the_cluster(self) -> None:
        cluster = silences(60, 61, 60.5, http_version="HTTP/2")
        found = advice([*cluster, *silences(300, pinged=True, http_version="HTTP/2")])
        assert "turn PING on" in found
        assert "kept them busy" not in found

    def test_nor_does_another_version_of_http(self) -> None:
        found = advice([*silences(60, 61, 60.5, http_version="HTTP/1.1"), *silences(300, http_version="HTTP/2")])
        assert "over HTTP/1.1 no PING can prevent it" in found
        assert "turn PING on" not in found

    def test_yesterday_does_not_count(self) -> None:
        old, new = silences(*[60.0] * 10 * LATEST), silences(*(5.0 * 1.5**n for n in range(20))) * (LATEST // 20)
        assert "after about 60 s" in advice(old)
        assert "60 s" not in advice([*old, *new])
