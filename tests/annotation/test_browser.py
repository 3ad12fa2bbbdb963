"""The pages in a real browser: with keys alone, with a mouse alone, without scripts; what is played and what is not."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select
from tests.annotation.projects import PASSWORD, add_people, make_folder, open_folder
from tests.annotation.server import running
from tests.annotation.web import streams

from moodal.annotation.schema import AnswerRow, AssignmentRow
from moodal.annotation.settings import AnnotationSettings

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
NAMES = ("MOODAL_CHROMIUM", "chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get(NAMES[0]) or next((p for n in NAMES[1:] if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; name one in MOODAL_CHROMIUM")
NUM = 2
SETTINGS = AnnotationSettings(conditions=("text", "audio", "vision", "full"), labels_per_clip=1, gap_clips=0)
MANY = AnnotationSettings(conditions=SETTINGS.conditions, labels_per_clip=5, gap_clips=0)
PEOPLE = ("Keys", "Mouse", "Plain", "Double", "Looker")
IS_PLAYING = "() => { const p = document.getElementById('player'); return p.currentTime > 0.1 && p.readyState >= 2 }"
# every visible text against the nearest background that is painted
CONTRASTS = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg') || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (e.closest('.skip')) continue;
    let at = e, back = [0, 0, 0, 0];
    while (at && (back[3] ?? 1) < 1) { back = parse(getComputedStyle(at).backgroundColor); at = at.parentElement; }
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("site"), NUM)
    db = open_folder(folder)
    add_people(db, PEOPLE)
    add_people(db, ["Lea"], "lead")
    db.close()
    return folder


@pytest.fixture(scope="module")
def site(folder) -> Iterator[str]:
    with running(folder, MANY) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, site):
    """``visit("Keys")``: a page of somebody who is signed in; a complaint of the browser fails the test."""
    complaints, contexts = [], []

    def enter(name: str, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(f"{site}/sign-in")
        page.locator("input[name=name]:focus").wait_for()
        page.keyboard.type(name)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "sign-in" not in url)
        return page

    yield enter
    for context in contexts:
        context.close()
    assert [c for c in complaints if "status of 400" not in c] == []  # half an answer, which some tests send


def answers(folder, name):
    """What somebody said, in order: condition, label, intensity, reason, comment, seconds."""
    from moodal.annotation.schema import Person

    db = open_folder(folder)
    with db.read() as session:
        rows = session.execute(
            select(AssignmentRow.condition, AnswerRow)
            .join(AnswerRow, AnswerRow.assignment_id == AssignmentRow.id)
            .join(Person, Person.id == AssignmentRow.person_id)
            .where(Person.name == name)
            .order_by(AnswerRow.id)
        ).all()
    db.close()
    return [(c, a.label, a.intensity, a.reason, a.comment, a.seconds) for c, a in rows]


def condition_of(page):
    shown = page.locator("h1.condition")
    return shown.get_attribute("class").split()[1] if shown.count() else ""


def checked(page, name):
    return page.evaluate(f"document.querySelector('input[name={name}]:checked')?.value ?? ''")


def save(page, key="Enter"):
    with page.expect_navigation():
        page.keyboard.press(key)


def test_everything_is_labelled_with_keys_alone(visit, folder):
    page, said = visit("Keys"), []
    while condition := condition_of(page):
        if condition != "text":
            page.wait_for_function(IS_PLAYING)  # by itself
        number = len(said)
        page.keyboard.press(str(1 + number % 8))
        emotion = SETTINGS.emotions[number % 8]
        assert checked(page, "label") == emotion
        key, intensity = (("w", "weak"), ("s", "strong"))[number % 2]
        page.keyboard.press(key)
        assert checked(page, "intensity") == intensity
        said.append((condition, emotion, intensity))
        save(page)
        assert number < 50
    assert "All done" in page.content() or "Nothing for you" in page.content()
    kept = answers(folder, "Keys")
    assert [a[:3] for a in kept] == said
    assert {c for c, *_ in said} == set(SETTINGS.conditions)
    assert all(0 < a[5] < 60 for a in kept)


def test_the_keys_do_what_the_help_says(visit, folder):
    page = visit("Looker")
    while condition_of(page) not in ("audio", "vision"):
        page.keyboard.press("Shift+Digit4")
        assert (checked(page, "label"), checked(page, "intensity")) == ("angry", "strong")
        save(page)
    page.wait_for_function(IS_PLAYING)
    page.keyboard.press(" ")
    assert page.evaluate("player.paused") or page.evaluate("player.ended")
    page.keyboard.press("r")
    page.wait_for_function("() => !player.paused && player.currentTime < 1")
    page.wait_for_function("() => player.ended")
    page.keyboard.press(" ")  # begins again
    page.wait_for_function("() => !player.paused")
    page.keyboard.press("?")
    assert page.locator("#keys dl").is_visible()
    page.keyboard.press("?")
    assert not page.locator("#keys dl").is_visible()
    page.keyboard.press("c")
    assert checked(page, "label") == "compound"
    page.keyboard.press("i")
    assert checked(page, "label") == "invalid"
    assert page.evaluate("document.activeElement.id") == "reason"
    page.keyboard.type("the sound")  # the list finds it; none of the letters is taken for a key
    assert page.locator("#reason").input_value() == "the sound is of no use"
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.keyboard.press("w")
    page.locator("input[name=comment]").focus()
    page.keyboard.type("3 suits, w and s")
    assert (checked(page, "label"), checked(page, "intensity")) == ("happy", "weak")
    first = page.locator("input[name=assignment]").input_value()
    save(page)  # Enter in a field saves, too
    assert answers(folder, "Looker")[-1][1:5] == ("happy", "weak", None, "3 suits, w and s")
    with page.expect_navigation():
        page.keyboard.press("u")
    assert page.locator("input[name=assignment]").input_value() == first
    assert checked(page, "label") == "happy"
    page.keyboard.press("6")
    save(page)
    assert answers(folder, "Looker")[-1][1] == "surprised"


def test_half_an_answer_comes_back_and_can_be_completed(visit):
    page = visit("Looker")
    page.keyboard.press("3")
    save(page)
    assert "Say how sad it is" in page.locator("[role=alert]").inner_text()
    assert checked(page, "label") == "sad"


def test_everything_is_labelled_with_a_mouse_alone(visit, folder):
    page, said = visit("Mouse"), []
    while condition := condition_of(page):
        if condition != "text":
            page.wait_for_function(IS_PLAYING)
            page.click("#toggle")
            page.click("#replay")
        emotion = SETTINGS.emotions[(3 * len(said)) % 8]
        page.click(f"label:has(input[value={emotion}])")
        page.click("label:has(input[value=strong])")
        said.append((condition, emotion, "strong"))
        with page.expect_navigation():
            page.click("button.primary")
        assert len(said) < 50
    assert [a[:3] for a in answers(folder, "Mouse")] == said


def test_everything_is_labelled_without_scripts(visit, folder):
    page, said = visit("Plain", java_script_enabled=False), []
    while condition := condition_of(page):
        assert page.locator("#answer").count() == 1
        assert not page.locator("#replay").is_visible() if condition != "text" else True
        if not said:
            page.check("input[value=invalid]", force=True)
            page.select_option("#reason", "too short to tell")
            said.append((condition, "invalid", None, "too short to tell"))
        else:
            page.check("input[value=fearful]", force=True)
            page.check("input[value=weak]", force=True)
            said.append((condition, "fearful", "weak", None))
        with page.expect_navigation():
            page.click("button.primary")
        assert len(said) < 50
    kept = answers(folder, "Plain")
    assert [a[:4] for a in kept] == said
    assert all(a[5] is not None for a in kept)
    with page.expect_navigation():
        page.click("text=Undo the last answer")
    assert page.locator("input[value=fearful]").is_checked()


def test_a_double_click_saves_one_answer(visit, folder):
    page = visit("Double")
    first = page.locator("input[name=assignment]").input_value()
    page.keyboard.press("1")
    page.dblclick("button.primary")
    page.wait_for_function(f"() => document.querySelector('input[name=assignment]')?.value != '{first}'")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_load_state("networkidle")
    assert len(answers(folder, "Double")) == 2


def test_what_a_page_does_not_show_never_reaches_the_browser(visit, tmp_path):
    page, fetched, seen = visit("Double"), [], {}
    page.on("response", lambda r: fetched.append((r.url, r.headers.get("content-type", ""))))
    page.goto(page.url)
    for number in range(40):
        condition = condition_of(page)
        if not condition:
            break
        if condition != "text":
            page.wait_for_function(IS_PLAYING)
        kinds = {kind.partition("/")[0] for url, kind in fetched if kind and "/static/" not in url}
        wanted = {"text": {"text"}, "audio": {"text", "audio"}}.get(condition, {"text", "video"})
        assert kinds == wanted
        if condition != "text":
            media = page.locator("#player").get_attribute("src")
            path = tmp_path / f"{number}.mp4"
            path.write_bytes(page.request.get(page.url.partition("/label")[0] + media).body())
            seen[condition] = streams(path)
        assert not page.evaluate("document.querySelector('img, [poster], object, embed, iframe') !== null")
        fetched.clear()
        page.keyboard.press("1")
        save(page)
    assert seen == {"audio": ["audio"], "vision": ["video"], "full": ["video", "audio"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_every_field_has_a_name(visit, site, scheme):
    annotator = visit("Looker", color_scheme=scheme)
    lead = visit("Lea", color_scheme=scheme)
    pages = [(annotator, "/label"), (annotator, "/instructions"), (lead, "/lead"), (lead, "/lead/people"),
             (lead, "/lead/disagreements"), (lead, "/lead/data"),
             (lead, "/lead/decide?clip=episode_0000&condition=audio")]  # fmt: skip
    for page, path in pages:
        page.goto(site + path)
        assert page.evaluate(CONTRASTS) == [], path
        nameless = "e => !(e.labels?.length || e.ariaLabel)"
        fields = "[...document.querySelectorAll('input:not([type=hidden]), select')]"
        assert page.evaluate(f"{fields}.filter({nameless}).map(e => e.name)") == [], path
        assert page.evaluate("document.querySelectorAll('h1').length") == 1, path


def test_on_a_telephone_nothing_is_cut_off(visit, site):
    page = visit("Looker")
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/label", "/instructions"):
        page.goto(site + path)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_an_invitation_leads_to_the_first_clip(visit, chromium, site):
    lead = visit("Lea")
    lead.goto(f"{site}/lead/people")
    lead.fill("input[name=name]", "New")
    lead.click("button:text-is('Invite')")
    link = lead.locator(".link").inner_text()
    context = chromium.new_context()
    page = context.new_page()
    page.goto(link)
    for name in ("password", "again"):
        page.fill(f"input[name={name}]", PASSWORD)
    page.click("button.primary")
    page.wait_for_url("**/instructions")
    page.click("a.primary")
    page.wait_for_url("**/label")
    assert condition_of(page)
    context.close()
