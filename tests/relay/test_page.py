"""The status page, in a real browser, before a stand-in for the relay whose feed the test speaks."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from real.parts import missing
from relay.page.stand_in import NOW, StandIn, answer, attempt, cut, hello, silences, turn
from unbroken.core.advice import CUTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Page

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"

Show = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if sync_playwright is None:
        missing("playwright is missing: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        missing("chromium is missing: apt install chromium")
    with sync_playwright() as playwright:
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=path, args=args)
        yield running
        running.close()


@pytest.fixture
def relay() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture(scope="module")
def window(browser: Browser) -> Page:
    """One window for all tests: opening one takes longer than most of them."""
    return browser.new_page()


@pytest.fixture
def show(window: Page, relay: StandIn) -> Iterator[Show]:
    """Opens the page on a feed that begins with ``hello(**greeting)``; the browser must not complain of anything."""
    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def on_error(error: Error) -> None:
        complaints.append(str(error))

    def show(greeting: dict[str, Any] | None = None, width: int = 1280, **media: Any) -> Page:
        relay.greeting = hello(**greeting or {})
        window.set_viewport_size({"width": width, "height": 800})
        window.emulate_media(**{"color_scheme": "light", "reduced_motion": "no-preference", **media})
        window.goto(relay.url)
        expect(window.locator("body[data-feed=live]")).to_be_attached()
        return window

    window.on("console", on_console)
    window.on("pageerror", on_error)
    yield show
    window.goto("about:blank")
    window.remove_listener("console", on_console)
    window.remove_listener("pageerror", on_error)
    assert complaints == []


def parts(page: Page, lane: str) -> list[str]:
    return page.locator(f"{lane} > span").evaluate_all("parts => parts.map(part => part.className)")


def edge(page: Page, part: str, side: str) -> float:
    return page.locator(part).evaluate(f"part => part.getBoundingClientRect().{side}")


def live(name: str, *attempts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return turn(name, *attempts, **{"outcome": None, **fields})


def ended(stand_in: StandIn, over: dict[str, Any], cuts: list[dict[str, Any]] | None = None, advice: str = "") -> None:
    totals = {"turns": 1, "answered": 1, "saved": 1, "cut": 0, "passed": 0}
    stand_in.say("ended", {"now": NOW, "turn": over, "cuts": cuts or [], "advice": advice, "totals": totals})


def three_turns() -> list[dict[str, Any]]:
    return [
        turn("aaaa0001", answer()),
        turn("aaaa0002", cut(), answer(2, after=61.0), upstream="deepseek", started=NOW - 700),
        turn("aaaa0003", *(cut(k + 1, after=61.0 * k) for k in range(4)), outcome="lost", started=NOW - 900),
    ]


# Live turns


def test_a_cut_and_its_replay_share_a_lane(show: Show) -> None:
    attempts = [cut(), attempt(2, after=61.0, elapsed=20.0, silent=19.0)]
    page = show({"live": [live("cafe0001", *attempts)]})
    row = page.locator("#lanes > li")
    expect(row).to_contain_text("cafe0001")
    expect(row.locator(".phase")).to_have_text(re.compile(r"silence (19|2\d) s"))
    expect(row.locator(".attempt")).to_have_text("attempt 2 after reset")
    assert parts(page, "#lanes .lane") == ["headers", "silence", "cut", "headers", "silence"]
    label = row.get_by_role("img").get_attribute("aria-label") or ""
    assert label.startswith("2 attempts: headers 1.0 s, silence 60 s, reset after 60 s of silence, before any output")
    cut_at = edge(page, "#lanes .cut", "left") + 7
    assert cut_at == pytest.approx(edge(page, "#lanes .silence >> nth=0", "right"), abs=1)
    assert cut_at == pytest.approx(edge(page, "#lanes .headers >> nth=1", "left"), abs=1)
    axis = page.locator("#live-scale").bounding_box()
    assert axis is not None
    assert page.locator("#live-scale span").last.inner_text() == "90 s"
    assert (cut_at - axis["x"]) / axis["width"] == pytest.approx(61 / 90, abs=0.01)


def test_each_phase_has_its_look_and_its_name(show: Show) -> None:
    nothing = {"headers_after": None, "status": None}
    phases = [
        ([attempt(phase="connect", **nothing)], ["connect"], "connecting", "attempt 1"),
        ([attempt(phase="headers", **nothing)], ["headers"], "headers", "attempt 1"),
        ([attempt(phase="output", output_after=4.0)], ["headers", "silence", "output"], "output", "attempt 1"),
        ([attempt(failure="busy", status=503, elapsed=1.0)], ["headers", "cut", "wait"], "waiting", "busy"),
        (
            [attempt(failure="busy", status=503, elapsed=1.0), attempt(2, phase="connect", after=3.0, **nothing)],
            ["headers", "cut", "wait", "connect"],
            "connecting",
            "attempt 2 after busy",
        ),
    ]
    page = show({"live": [live(f"cafe{n}", *phases[n][0], elapsed=8.0, started=NOW + n) for n in range(5)]})
    rows = page.locator("#lanes > li")
    expect(rows).to_have_count(5)
    for n, (_, drawn, phase, which) in enumerate(phases):
        expect(rows.nth(n).locator(".phase")).to_contain_text(phase)
        expect(rows.nth(n).locator(".attempt")).to_have_text(which)
        assert parts(page, f"#lanes > li >> nth={n} >> .lane") == drawn
    looks = page.locator("#legend .swatch > span").evaluate_all(
        "parts => parts.map(part => { const s = getComputedStyle(part);"
        " return [s.backgroundImage, s.borderStyle, s.borderRadius].join() })"
    )
    assert len(set(looks)) == 6  # not by colour alone


def test_a_running_lane_grows_between_two_words_of_the_feed(show: Show) -> None:
    page = show({"live": [live("cafe0001", attempt(elapsed=3.0, silent=2.0))]})
    expect(page.locator("#lanes .elapsed")).to_have_text(re.compile(r"3\.[5-9] s|[4-9]\.\d s"))


def test_of_hundreds_of_live_turns_the_troubled_ones_are_drawn(show: Show, relay: StandIn) -> None:
    calm = [live(f"beef{n:04}", attempt(phase="output", output_after=2.0), started=NOW - 500 + n) for n in range(299)]
    page = show({"live": [*calm, live("cafe0001", cut(), attempt(2, after=61.0), started=NOW)]})
    expect(page.locator("#lanes > li")).to_have_count(16)
    expect(page.locator("#lanes")).to_contain_text("cafe0001")
    expect(page.locator("#more")).to_contain_text("and 284 more")
    expect(page).to_have_title("300 running · Unbroken relay")
    relay.say("live", {"now": NOW, "live": []})
    expect(page.locator("#lanes > li")).to_have_count(0)
    expect(page.locator("#no-turns")).to_be_visible()


def test_before_the_first_turn_the_page_says_how_to_send_one(show: Show, relay: StandIn) -> None:
    page = show()
    origin = relay.url.removesuffix("/_unbroken/")
    expect(page.locator("#how")).to_contain_text(f"OPENAI_BASE_URL={origin}/openai/v1")
    expect(page.locator("#how")).to_contain_text(f"where NAME is deepseek\n{origin}/NAME/…")
    expect(page.locator("#no-cuts")).to_contain_text("idle timer")
    expect(page.locator("#no-ended")).to_be_visible()
    expect(page.locator("#turns")).to_be_hidden()


# The last hundred


def test_a_turn_that_ends_becomes_the_first_row(show: Show, relay: StandIn) -> None:
    running = live("cafe0001", cut(), attempt(2, after=61.0))
    page = show({"live": [running], "recent": three_turns()})
    expect(page.locator("#lanes > li")).to_have_count(1)
    ended(relay, turn("cafe0001", cut(), answer(2, after=61.0)))
    first = page.locator("tr.turn").first
    expect(first.locator(".outcome")).to_have_text("saved")
    expect(first.locator(".lost")).to_have_text("reset after 60 s of silence, before any output")
    expect(first.locator(".attempts")).to_have_text("2")
    expect(first.locator(".first")).to_have_text("66 s")
    expect(first.locator(".elapsed")).to_have_text("71 s")
    assert parts(page, "tr.turn >> nth=0 >> .lane") == ["headers", "silence", "cut", "headers", "silence", "output"]
    expect(page.locator("#lanes > li")).to_have_count(0)
    expect(page.locator("#total-saved")).to_have_text("1")
    expect(page.locator("tr.turn")).to_have_count(4)
    expect(page.locator("tr.turn").last.locator(".lost")).to_have_text(
        "4 × reset after 60 s of silence, before any output"
    )


def test_a_turn_that_took_another_path_tells_which(show: Show) -> None:
    moved = turn("cafe0001", cut() | {"path": "http://127.0.0.1:1"}, answer(2, after=61.0) | {"path": "direct"})
    page = show({"recent": [moved]})
    row = page.locator("tr.turn").first
    expect(row.locator(".lost")).to_have_text(
        "reset after 60 s of silence, before any output; going by direct from then on"
    )


def test_keys_move_through_the_turns_and_open_one(show: Show) -> None:
    page = show({"recent": three_turns()})
    rows = page.locator("tr.turn button")
    expect(rows).to_have_count(3)
    press = page.keyboard.press
    press("j")
    expect(rows.nth(0)).to_be_focused()
    press("j")
    press("ArrowDown")
    press("ArrowDown")
    expect(rows.nth(2)).to_be_focused()
    press("k")
    expect(rows.nth(1)).to_be_focused()
    assert page.locator("tr.turn button[tabindex='0']").count() == 1

    press("Enter")
    expect(rows.nth(1)).to_have_attribute("aria-expanded", "true")
    details = page.get_by_role("region", name="Turn aaaa0002")
    lost, answered = details.locator("tbody tr").all()
    told = dict(zip(details.locator("th").all_inner_texts(), lost.locator("td").all_inner_texts(), strict=True))
    assert told == {
        "Attempt": "1",
        "Sent after": "0.0 s",
        "Reached": "prelude",
        "Failure": "reset",
        "Status": "200",
        "Path": "–",
        "HTTP": "2",
        "PING": "none",
        "Headers": "1.0 s",
        "1st output": "–",
        "Silent": "60 s",
        "Elapsed": "61 s",
        "Billed": "perhaps",
        "Detail": "[Errno 104] reset",
    }
    expect(answered).to_contain_text("complete")
    press("End")
    expect(rows.nth(2)).to_be_focused()
    press("Space")
    expect(page.locator("#details")).to_have_count(1)
    expect(rows.nth(2)).to_have_attribute("aria-expanded", "true")
    press("Home")
    press("Escape")
    expect(page.locator("#details")).to_have_count(0)
    expect(rows.nth(2)).to_be_focused()
    page.locator("tr.turn .outcome").nth(0).click()
    expect(page.get_by_role("region", name="Turn aaaa0001")).to_be_visible()


def test_keys_start_at_the_newest_turn(show: Show, relay: StandIn) -> None:
    page = show({"recent": three_turns()})
    expect(page.locator("tr.turn")).to_have_count(3)
    ended(relay, turn("cafe0001", answer()))
    expect(page.locator("tr.turn")).to_have_count(4)
    page.keyboard.press("j")
    expect(page.locator("tr.turn button").first).to_be_focused()


def test_a_new_turn_leaves_focus_and_details_where_they_are(show: Show, relay: StandIn) -> None:
    many = [turn(f"beef{n:04}", answer(), started=NOW - 600 - n) for n in range(100)]
    page = show({"recent": many})
    expect(page.locator("tr.turn")).to_have_count(100)
    for key in ("j", "j", "Enter"):
        page.keyboard.press(key)
    focused = page.locator("tr.turn button:focus >> xpath=ancestor::tbody")
    ended(relay, turn("cafe0001", answer()))
    expect(page.locator("tbody.entry").nth(2).get_by_role("region", name="Turn beef0001")).to_be_visible()
    expect(focused.get_by_role("region", name="Turn beef0001")).to_be_visible()
    expect(page.locator("tr.turn")).to_have_count(100)
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Turn beef0098")).to_be_visible()
    ended(relay, turn("cafe0002", answer()))  # and beef0098 falls off the end
    expect(page.locator("#details")).to_have_count(0)
    expect(page.locator("tr.turn button").last).to_be_focused()


def test_a_filter_takes_upstream_outcome_and_text(show: Show) -> None:
    page = show({"recent": three_turns()})
    shown = page.locator("tr.turn:visible")
    expect(shown).to_have_count(3)
    page.keyboard.press("/")
    filter_box = page.get_by_role("searchbox")
    expect(filter_box).to_be_focused()
    page.keyboard.type("deepseek saved")
    expect(shown).to_have_count(1)
    expect(page.locator("#shown")).to_have_text("1 of 3")
    page.keyboard.press("Enter")
    expect(page.locator("tr.turn:visible button")).to_be_focused()
    filter_box.fill("errno 104")
    expect(shown).to_have_count(2)
    filter_box.fill("j/?")
    expect(page.locator("#no-match")).to_be_visible()
    page.keyboard.press("Escape")
    expect(shown).to_have_count(3)
    page.keyboard.press("Escape")
    expect(shown.nth(0).locator("button")).to_be_focused()


def test_the_keys_are_explained(show: Show) -> None:
    page = show()
    page.get_by_role("button", name="Keys").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("next turn, previous turn")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()


# Silence


@pytest.mark.parametrize("timer", [5.0, 60.0, 600.0])
def test_an_idle_timer_is_a_spike(show: Show, timer: float) -> None:
    scattered = silences(1.2, 2.5, 9.0, 17.0, 41.0, 130.0, 420.0, pinged=True)
    spike = silences(*(timer * (1 + n / 600) for n in range(-3, 9)))
    page = show({"cuts": [*scattered, *spike], "advice": f"something cuts after about {timer:.0f} s"})
    bars = page.locator("#histogram .bar")
    expect(page.locator("#histogram .tallest")).to_have_count(1)
    expect(page.locator("#advice")).to_have_text(f"something cuts after about {timer:.0f} s")
    heights = bars.evaluate_all("bars => bars.map(bar => bar.children[1].offsetHeight + bar.children[2].offsetHeight)")
    highest, second = sorted(heights, reverse=True)[:2]
    assert highest > 5 * second > 0
    tallest = page.locator("#histogram .tallest")
    expect(tallest.locator(".n")).to_have_text("12")
    expect(tallest.locator(".tick")).to_have_text(f"{timer:.0f}")
    expect(page.locator("#spike")).to_contain_text(f"12 of 19 cuts after {timer * 0.995:.1f} to")
    expect(page.locator("#spike")).to_contain_text("7 in all although PING was answered")
    assert ": 12" in (page.locator("#histogram").get_attribute("aria-label") or "")


def test_the_cuts_of_a_turn_count_while_it_runs_and_once_when_it_has_ended(show: Show, relay: StandIn) -> None:
    running = live("cafe0001", cut(), attempt(2, after=61.0))
    page = show({"cuts": silences(60.0, 60.1), "live": [running]})
    expect(page.locator("#cut-count")).to_have_text("3")  # one of them by a turn that runs
    ended(relay, turn("cafe0001", cut(), answer(2, after=61.0)), silences(60.2), "something closes idle connections")
    expect(page.locator("#advice")).to_have_text("something closes idle connections")
    expect(page.locator("#cut-count")).to_have_text("3")


def test_the_page_knows_which_failures_are_cuts() -> None:
    script = files("unbroken.relay").joinpath("page", "page.js").read_text("utf-8")
    known = re.search(r"const CUT_BY_OTHERS = \[(.*?)\]", script, re.S)
    assert known
    assert set(re.findall(r'"(\w+)"', known[1])) == CUTS


def test_a_new_cut_is_told_to_those_who_do_not_see_it(show: Show, relay: StandIn) -> None:
    lost = live("cafe0001", cut(), attempt(2, after=61.0))
    page = show({"live": [lost]})
    news = page.locator("#news")
    relay.say("live", {"now": NOW, "live": [{**lost, "elapsed": 100.0}]})
    expect(page.locator("#lanes .elapsed")).to_have_text(re.compile("^10"))
    expect(news).to_have_text("")  # that cut was before
    again = live("cafe0001", cut(), cut(2, after=61.0), attempt(3, after=122.0))
    relay.say("live", {"now": NOW, "live": [again]})
    expect(news).to_have_attribute("aria-live", "polite")
    expect(news).to_have_text("Turn cafe0001 to openai: reset after 60 s of silence, before any output; sending again.")


# The feed


def test_after_a_reconnect_hello_replaces_everything(show: Show, relay: StandIn) -> None:
    page = show({"recent": three_turns(), "live": [live("cafe0001", attempt())], "cuts": silences(60.0)})
    expect(page.locator("tr.turn")).to_have_count(3)
    relay.greeting = hello(version="0.2.0", recent=[turn("dead0001", answer())], upstreams=["gemini"])
    relay.hang_up()
    expect(page.locator("#version")).to_have_text("0.2.0")
    expect(page.locator("tr.turn")).to_have_count(1)
    expect(page.locator("#lanes > li")).to_have_count(0)
    expect(page.locator("#no-live")).to_be_visible()
    expect(page.locator("#no-cuts")).to_be_visible()
    expect(page.locator("#upstreams")).to_have_text("to gemini")
    expect(page.locator("#feed")).to_have_text("live")


def test_it_is_said_whose_page_it_is_and_what_became_of_turns_whose_client_had_gone(show: Show, relay: StandIn) -> None:
    kept = {"kept": {"turns": 2, "tokens": 1200}, "dropped": {"turns": 1, "tokens": 30}}
    page = show({"shows": "2 relays together", "kept": kept})
    shows, said = page.locator("#shows"), page.locator("#kept")
    expect(shows).to_have_text("Shown: 2 relays together.")
    both = "2 kept (about 1,200 tokens), {}1 dropped (about 30 tokens)."
    expect(said).to_have_text(f"Turns whose client had gone: {both.format('')}")
    relay.say("kept", {"kept": {**kept, "collected": {"turns": 1, "tokens": 7}}})
    expect(said).to_have_text(f"Turns whose client had gone: {both.format('1 collected (about 7 tokens), ')}")
    relay.say("hello", hello())
    expect(shows).to_be_empty()
    expect(said).to_be_empty()


def test_while_the_feed_is_away_the_lanes_stand_still_and_the_page_asks_again(browser: Browser, relay: StandIn) -> None:
    relay.greeting = hello(live=[live("cafe0001", attempt(elapsed=2.0))])
    with browser.new_context() as context:  # its own, for a clock stays in its context
        page = context.new_page()
        page.clock.install(time=NOW)
        page.goto(relay.url)
        expect(page.locator("#lanes > li")).to_have_count(1)
        page.clock.pause_at(NOW + 60)
        relay.away = True
        relay.hang_up()
        expect(page.locator("#feed")).to_contain_text("reconnecting; shown is what was at")
        assert relay.refused.wait(5)  # after which a browser does not try again by itself
        page.clock.run_for(500)
        stood = page.locator("#lanes .elapsed").inner_text()
        page.clock.run_for(1000)
        assert page.locator("#lanes .elapsed").inner_text() == stood
        relay.away = False
        relay.greeting = hello()
        page.clock.resume()
        expect(page.locator("#feed")).to_have_text("live")
        expect(page.locator("#lanes > li")).to_have_count(0)


def test_what_the_feed_says_is_text(show: Show) -> None:
    page = show(
        {
            "version": HOSTILE,
            "upstreams": [HOSTILE],
            "advice": HOSTILE,
            "shows": HOSTILE,
            "live": [live(HOSTILE, attempt(failure=HOSTILE), upstream=HOSTILE, dialect=HOSTILE)],
            "recent": [
                turn(
                    HOSTILE,
                    attempt(failure=HOSTILE, detail=HOSTILE, phase=HOSTILE, http_version=HOSTILE, billed=HOSTILE),
                    upstream=HOSTILE,
                    dialect=HOSTILE,
                    outcome=HOSTILE,
                )
            ],
        }
    )
    expect(page.locator("tr.turn .upstream")).to_have_text(HOSTILE)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    for where in (
        "#version",
        "#upstreams",
        "#shows",
        "#advice",
        "#lanes .who",
        "#lanes .attempt",
        "tr.turn .lost",
        "#details",
    ):
        expect(page.locator(where)).to_contain_text(HOSTILE)
    assert page.locator("img, [onerror]").count() == 0


# Looks

_CONTRASTS = """
selectors => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
    return a ? [r, g, b] : behind(node.parentElement);
  };
  return Object.fromEntries(selectors.map((selector) => {
    const node = document.querySelector(selector);
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    return [selector, (a + 0.05) / (b + 0.05)];
  }));
}
"""

_TEXTS = (
    "h1 #version #upstreams #feed #total-saved #total-cut #totals|dt .legend|li .axis|span #lanes|.upstream "
    "#lanes|code #lanes|.dialect #lanes|.phase[data-kind=silence] #lanes|.phase[data-kind=output] #lanes|.silence "
    "#lanes|.output .axis-title #spike #advice .tick #turns|th tr.turn|.lost tr.turn|.dialect "
    "[data-mood=saved]|.outcome [data-mood=bad]|.outcome .facts|dt .facts|dd .attempt-list|th #filter #help kbd"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_themes(show: Show, scheme: str) -> None:
    page = show(
        {
            "live": [
                live("cafe0001", cut(), attempt(2, after=61.0)),
                live("cafe0002", attempt(phase="output", output_after=5.0, elapsed=60.0)),
            ],
            "recent": three_turns(),
            "cuts": silences(60.0),
            "advice": "something on the way cuts idle connections after about 60 s",
            "totals": {"turns": 9, "answered": 8, "saved": 2, "cut": 1, "passed": 0},
        },
        color_scheme=scheme,
    )
    expect(page.locator("tr.turn")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    contrasts = page.evaluate(_CONTRASTS, [text.replace("|", " ") for text in _TEXTS.split()])
    assert {text: round(ratio, 2) for text, ratio in contrasts.items() if ratio < 4.5} == {}
    page_colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", page_colour)[0]) < 128) == (scheme == "dark")


@pytest.mark.parametrize("width", [360, 760, 1180, 1600])
def test_the_page_fits_its_window(show: Show, width: int) -> None:
    long = "a_very_long_name_of_an_upstream_that_nobody_would_choose" * 2
    recent = [turn("aaaa0000", cut(), answer(2, after=61.0), upstream=long, dialect=long), *three_turns()]
    running = [live("cafe0001", cut(), attempt(2, after=61.0), upstream=long, dialect=long)]
    page = show(
        {"recent": recent, "live": running, "upstreams": [long] * 4, "cuts": silences(60.0), "advice": long * 3},
        width=width,
    )
    expect(page.locator("tr.turn")).to_have_count(4)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("?")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("motion", "least", "most"), [("reduce", 2, 3), ("no-preference", 10, 12)])
def test_those_who_want_less_motion_get_less(
    browser: Browser, relay: StandIn, motion: Any, least: int, most: int
) -> None:
    relay.greeting = hello(live=[live("cafe0001", attempt(elapsed=2.0))])
    with browser.new_context(reduced_motion=motion) as context:  # its own, for a clock stays in its context
        page = context.new_page()
        page.clock.install(time=NOW)
        page.goto(relay.url)
        expect(page.locator("#lanes > li")).to_have_count(1)
        page.clock.pause_at(NOW + 60)
        page.evaluate(
            "() => { window.paints = 0; new MutationObserver(() => { paints += 1 })"
            ".observe(document.querySelector('#lanes .silence'), { attributeFilter: ['style'] }) }"
        )
        page.clock.run_for(3000)
        assert least <= page.evaluate("paints") <= most
        assert page.evaluate("document.getAnimations().length") == 0
