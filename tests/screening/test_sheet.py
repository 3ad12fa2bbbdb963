"""The page of a screening: counts that add up, the failing number marked, nothing of the input taken for markup."""

import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from moodal.data.clips import Clip
from moodal.screening.histogram import BINS, HEIGHT, WIDTH, draw
from moodal.screening.settings import ScreenSettings
from moodal.screening.sheet import SAMPLE, sample_clips, write_sheet

VOID = {"meta", "img", "input"}
HOSTILE = "<script>alert('1')</script>&\"\ud800"


def clip(number, reason=None, **values):
    known = {"loudness_db": -20.0, "speech_share": 0.9, "passed": reason is None, "reason": reason}
    return Clip(f"e_{number:05d}", "e.mp4", "e", 2.0 * number, 2.0 * number + 1.5, **{**known, **values})


class Nesting(HTMLParser):
    """Every element is closed, in order; what was met."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], Counter(), []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(tmp_path):
    def make(clips, settings=None, pictures=None, problems=None, notes=()):
        write_sheet(tmp_path / "p.html", clips, settings or ScreenSettings(), pictures or {}, problems or {}, notes)
        return (tmp_path / "p.html").read_text(encoding="utf-8")

    return make


def test_the_page_is_well_formed_and_stands_alone(page):
    clips = [clip(0), clip(1, "speech", speech_share=0.1), clip(2, "unreadable", loudness_db=None, speech_share=None)]
    text = page(clips, pictures={"e_00000": b"\xff\xd8 jpeg"}, problems={"x.mp4": "is gone"}, notes=["a note"])
    tags = Nesting(text).tags
    assert tags["script"] == tags["link"] == 0
    assert tags["img"] == 1
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


def test_nothing_of_the_input_is_markup(page):
    bad = clip(0, "voice", text=HOSTILE, detail=HOSTILE, voice_distance=0.9)
    bad = Clip(**{**{f: getattr(bad, f) for f in Clip.__slots__}, "id": HOSTILE})
    text = page([bad], problems={HOSTILE: HOSTILE}, notes=[HOSTILE])
    found = Nesting(text)
    assert found.tags["script"] == 0
    assert sum("<script>alert('1')</script>&\"?" in w for w in found.words) == 5  # note, problem, id, words, detail
    assert "<script" not in text


def test_the_failing_number_is_marked_and_no_other(page):
    text = page([clip(0, "speech", speech_share=0.12, detail="speech for 12 % of its time, less than 30 %")])
    assert re.findall(r'class="failed">([^<]*)<', text) == ["speech", "12 %"]
    assert text.count("speech for 12 % of its time, less than 30 %") == 1
    text = page([clip(0, "length")])
    assert re.findall(r'class="failed">([^<]*)<', text) == ["1.50 s"]


def test_the_funnel_adds_up(page):
    clips = (
        [clip(k) for k in range(4)]
        + [clip(10 + k, "speech") for k in range(3)]
        + [clip(20 + k, "face") for k in (0, 1)]
    )
    rows = re.findall(r'<td class=number>(\d+)</td>\s*<td class="number">(\d+)</td>', page(clips))
    numbers = [(int(fell), int(left)) for fell, left in rows]
    assert [fell for fell, _ in numbers if fell] == [3, 2]
    left = len(clips)
    for fell, still in numbers:
        left -= fell
        assert still == left
    assert left == 4
    assert "<b>4</b> of 9 clips passed: 0.1 minutes to label, from 1 video." in page(clips)


def test_a_filter_that_is_left_out_says_so(page):
    text = page([clip(0)], ScreenSettings(voices=False, duplicates=False))
    assert text.count("left out by the settings") == 2


def test_sixty_thousand_clips_are_a_page_that_opens(page):
    reasons = (None, "length", "speech", "face", "voice")
    clips = [clip(k, reasons[k % 5], voice_distance=k / 60_000) for k in range(60_000)]
    shown = sample_clips(clips)
    assert len(shown) == 5 * SAMPLE
    text = page(clips, pictures={c.id: b"x" * 3_000 for c in shown})
    assert text.count('<article class="card">') == 5 * SAMPLE
    assert text.count(f"{SAMPLE} of 12,000, drawn at random") == 5
    assert len(text) < 2_000_000


def test_another_threshold_shows_the_same_clips_where_it_can():
    clips = [clip(k) for k in range(1_000)]
    before = {c.id for c in sample_clips(clips)}
    after = {c.id for c in sample_clips([clip(k, "voice" if k % 10 == 0 else None) for k in range(1_000)]) if c.passed}
    assert len(before & after) >= 0.8 * SAMPLE


def test_nothing_at_all_is_a_page_too(page):
    assert "<b>0</b> of 0 clips passed" in page([])
    Nesting(page([]))


def bars(svg):
    return [r.attrib for r in ElementTree.fromstring(svg).iter("rect")]  # noqa: S314 (our own drawing)


def test_bars_beyond_the_threshold_are_another_colour():
    found = bars(draw([0.05, 0.15, 0.15, 0.95], [(0.1, True, "0.1")], (0.0, 1.0), ""))
    assert [b["class"] for b in found] == ["bar out", "bar", "bar"]
    heights = [float(b["height"]) for b in found]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)


def test_what_lies_beyond_the_axis_stands_at_its_end():
    first, last = bars(draw([-500, 3.0, 5e9], [], (0.0, 3.0), "s"))
    assert float(first["x"]) == 0
    assert float(last["x"]) == pytest.approx(WIDTH - WIDTH / BINS, abs=0.1)


def test_a_threshold_beyond_the_axis_is_still_in_the_picture():
    svg = draw([1.0], [(9.0, False, "<9>"), (-9.0, True, "-9")], (0.0, 3.0), "s")
    lines = [x for x in ElementTree.fromstring(svg).iter("line") if x.attrib["class"] == "limit"]  # noqa: S314
    assert [float(x.attrib["x1"]) for x in lines] == [WIDTH, 0]
    assert all(0 <= float(x.attrib["y2"]) <= HEIGHT for x in lines)
    assert "&lt;9&gt;" in svg
