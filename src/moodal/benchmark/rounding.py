"""Numbers as people read them: rounded here, and nowhere else. Verdict, printed tables and figures all say them so."""

from __future__ import annotations

PLAIN_UNITS = ("nll", "mae", "corr")  # all other metrics are shares, printed in percent


def show(value: float, metric: str, *, sign: bool = False) -> str:
    """Percent with one decimal for shares, three decimals for the rest."""
    return _signed(f"{value:+.3f}" if metric in PLAIN_UNITS else f"{100 * value:+.1f}", sign)


def show_share(share: float) -> str:
    """Whole percent: what a share is of has an uncertainty of its own."""
    return _signed(f"{100 * share:+.0f}", False)


def show_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def show_range(low: float | None, high: float | None, metric: str, *, sign: bool = False) -> str:
    """Empty where there is no interval."""
    return "" if low is None or high is None else f"[{show(low, metric, sign=sign)}, {show(high, metric, sign=sign)}]"


def _signed(text: str, plus: bool) -> str:
    if float(text) == 0:
        text = text.replace("-", "+")  # no minus zero
    return (text if plus else text.removeprefix("+")).replace("-", "−")
