"""The page of `tandem inspect --html`, as a browser shows it: without scripts, at two widths, light and dark."""

import os
import re
import sys
import unittest
from pathlib import Path

from browser import Browser, find_chromium
from program import ProgramTest, lookup, model_path

CHROMIUM = find_chromium()


def rgb(text: str) -> tuple[int, ...]:
    """Of "rgb(1, 2, 3)", as computed styles say it."""
    return tuple(int(word) for word in re.findall(r"\d+", text)[:3])


class Page(ProgramTest):
    def page(self, *words: object) -> Path:
        self.succeed("inspect", *words, "--html", "page.html")
        return self.folder / "page.html"

    def check(self, browser: Browser, width: int, dark: bool, texts: list[str], cells: int) -> None:
        what = f"{width} pixels, {'dark' if dark else 'light'}"
        self.assertEqual(browser.complaints(), [], what)
        self.assertEqual([url[:5] for url in browser.requests() if not url.startswith("data:")], ["file:"], what)
        widths = [browser.value(f"document.documentElement.{side}Width") for side in ("scroll", "client")]
        self.assertEqual(widths, [width, width], f"{what}: the page is wider than the window")
        shown = browser.value("document.body.innerText")
        for text in texts:
            self.assertIn(text, shown, what)
        styles = "[...document.querySelectorAll('.split')].map(e => getComputedStyle(e).backgroundImage)"
        colours = {rgb(style.partition("rgb")[2]) for style in browser.value(styles)}
        self.assertEqual(len(colours), cells, f"{what}: {colours}")
        folder = os.environ.get("TANDEM_SCREENSHOTS")
        picture = browser.screenshot(Path(folder, f"page_{width}_{'dark' if dark else 'light'}.png") if folder else None)
        self.assertEqual(picture.shape[1], width)
        for colour in colours:
            self.assertGreater((picture == colour).all(axis=2).sum(), 200, f"{what}: {colour} is not seen")
        paper = rgb(browser.value("getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(tuple(picture[2, 2]), paper, what)
        self.assertEqual(sum(paper) < 200, dark, f"{what}: the paper is {paper}")

    def test_two_widths_light_and_dark(self) -> None:
        page = self.page(model_path("bert_dynamo23"), "--mesh", "cp=2,tp=2", "--at", "batch=4,sequence=16")
        texts = [
            "bert_dynamo23.onnx",
            "cp=2,tp=2",
            "rank 3",
            "input_ids",
            "all_reduce sum",
            "model.encoder.layer.0",
            "Memory over time",
            "at batch=4, sequence=16",
            "sent by a rank",
            "onednn_matmul",
            "40 weights",
            "compiler",
        ]
        with Browser(CHROMIUM) as browser:
            for width, dark in ((1280, False), (400, False), (1280, True)):
                browser.open(page, width, dark=dark)
                self.check(browser, width, dark, texts, cells=2)
            bars = browser.value("document.querySelectorAll('svg rect title').length")
            steps = browser.value("document.querySelector('.chart .x').lastChild.textContent")
            self.assertEqual(steps, f"step {bars - 1}")
            heights = browser.value("[...document.querySelectorAll('svg rect')].map(r => r.getBoundingClientRect().height)")
            self.assertGreater(max(heights), 100)

    def test_one_rank_and_names_with_markup(self) -> None:
        model = lookup()
        model.graph.node[0].name = "<img src=x onerror=alert(1)>&\"'"
        with Browser(CHROMIUM) as browser:
            browser.open(self.page(self.save(model)), 800)
            self.check(browser, 800, False, ["<img src=x onerror=alert(1)>&\"'", "None: no rank waits for another."], cells=0)


if __name__ == "__main__":
    if CHROMIUM is None:
        print("skipped: Chromium is not installed (apt install chromium)")
        sys.exit(77)
    unittest.main(verbosity=2)
