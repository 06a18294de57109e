"""The verdict on a program as one page that stands alone: no script, nothing that is loaded, everything escaped."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterator

from unbroken import __version__
from unbroken.cli.terminal import harmless
from unbroken.cli.verdict_report import ProgramReport, attempts_of
from unbroken.cli.verdict_runs import Trial
from unbroken.lab.verdict import FINE

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1b1b; background: #fff }
code, pre { font: 13px/1.4 ui-monospace, monospace }
pre { background: #f4f4f2; padding: .6rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
td.number, th.number { text-align: right }
.bad { color: #a3130b; font-weight: 600 }
.good { color: #1d6b2f }
details > summary { cursor: pointer }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #181818 } pre { background: #242424 } th, td { border-color: #3a3a3a }
  .bad { color: #ff8a80 } .good { color: #8fd19e }
}
""".strip()  # noqa: E501 - a style sheet

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(report: ProgramReport) -> str:
    """Return the page for a report."""
    title = "What this client makes of broken connections"
    return _PAGE.format(title=title, style=_STYLE, body="\n".join(_body(report, title)))


def _body(report: ProgramReport, title: str) -> Iterator[str]:
    yield f"<h1>{title}</h1>"
    yield f"<p><code>{_escaped(report.shown_command)}</code></p>"
    yield f'<p class="{"good" if report.is_fine else "bad"}">{_escaped(report.summary)}</p>'
    yield (
        f"<p>Dialect {_escaped(report.dialect or 'unknown')}; <code>unbroken lab verdict</code>"
        f" {_escaped(__version__)}, {_escaped(platform.system())}, Python {_escaped(platform.python_version())}.</p>"
    )
    yield "<table><thead><tr><th>scenario</th><th>verdict</th>"
    for name in ("requests", "seconds", "exit code"):
        yield f'<th class="number">{name}</th>'
    yield "</tr></thead><tbody>"
    for trial in report.trials:
        yield from _row(report, trial)
    yield "</tbody></table>"


def _row(report: ProgramReport, trial: Trial) -> Iterator[str]:
    verdict, ran = trial.verdict, trial.program
    kind = "bad" if verdict.outcome not in FINE else "good" if verdict.outcome == "survived" else ""
    code = "ended by us" if ran.exit_code is None else str(ran.exit_code)
    yield f"<tr><td><details><summary>{_escaped(verdict.scenario)}</summary>"
    yield from _details(report, trial)
    reason = "" if verdict.outcome == "survived" else f"<br><small>{_escaped('; '.join(verdict.reasons))}</small>"
    yield f'</details></td><td><span class="{kind}">{_escaped(", ".join(verdict.found))}</span>{reason}</td>'
    for number in (str(verdict.requests), f"{ran.seconds:.1f}", code):
        yield f'<td class="number">{number}</td>'
    yield "</tr>"


def _details(report: ProgramReport, trial: Trial) -> Iterator[str]:
    yield f"<p>{_escaped(trial.scenario.about)}</p>"
    yield f"<p>{_escaped('; '.join(trial.verdict.reasons))}.</p>"
    yield "<ul>"
    for attempt in attempts_of(trial):
        met = f"met <code>{_escaped(attempt['fault'])}</code>" if attempt["fault"] else "was answered"
        yield f"<li>the request at {attempt['at']:.3f} s {met}</li>"
    yield "</ul>"
    for name, text in (("stdout", trial.program.stdout), ("stderr", trial.program.stderr)):
        if text:
            yield f"<p>{name}</p><pre>{_escaped(report.secrets.hide(text))}</pre>"


def _escaped(text: str) -> str:
    return html.escape(harmless(text))
