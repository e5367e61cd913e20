"""Pictures of the pages for the README: the audit, the review and the report of a store, as small PNG files.

    python tests/screenshots.py [STORE] [FOLDER]      (default: data/store data/screenshots; `make screenshots`)

The store is what `make demo` leaves. It is copied first, since a verdict is a vote of the next refresh, and so that
something can change: the copy forgets an annotator and is refreshed. Anything that looks odd in a picture is odd.
"""

import base64
import io
import shutil
import sys
import tempfile
from pathlib import Path

from helpers.browser import Browser, chromium, served
from PIL import Image

from dpo_data.analysis.forgetting import forget
from dpo_data.review.app import create_app
from dpo_data.store import versions
from flows.recipe import load
from flows.refresh import refresh

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1180
_COLOURS = 64
"""Of the palette: text on a plain ground needs no more, and a picture shrinks to a third."""
_OPEN_FIRST = "document.querySelector({!r} + ' details').open = true"


class Camera:
    """A browser whose pictures go into one folder."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser, self.folder = browser, folder

    def shoot(self, name: str, height: int, selector: str = "body") -> None:
        """`height` pixels of the page that is open, from where `selector` begins."""
        top = self.browser.ask(f"document.querySelector({selector!r}).getBoundingClientRect().top + scrollY")
        clip = {"x": 0, "y": top, "width": WIDTH, "height": height, "scale": 1}
        taken = self.browser.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        picture = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
        path = self.folder / f"{name}.png"
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


def of_the_audit(camera: Camera, version: versions.Version) -> None:
    """The first screen, what the annotators did, what length did, twins side by side, borderline rows."""
    camera.browser.open((version.path / "audit.html").as_uri(), width=WIDTH)
    camera.shoot("audit", 680)
    camera.shoot("annotators", 560, "#annotators h2")
    camera.shoot("length", 640, "#length h2")
    for section in ("#dropped", "#twins", "#limits"):
        camera.browser.ask(_OPEN_FIRST.format(section))
    camera.shoot("twins", 520, "#twins h2")
    camera.shoot("borderline", 640, "#limits h3")


def of_what_changed(camera: Camera, version: versions.Version) -> None:
    """The section that compares a version with the one before."""
    camera.browser.open((version.path / "audit.html").as_uri(), width=WIDTH)
    camera.shoot("changed", 470, "#changed h2")


def of_the_review(camera: Camera, store: Path) -> None:
    """A comparison blind, and the story that follows the verdict."""
    with served(create_app(store)) as address:
        camera.browser.open(f"{address}/", width=WIDTH)
        for letter in "ada":
            camera.browser.press(letter)
        camera.browser.press_and_wait("Enter")
        camera.browser.open(f"{address}/read?q=contradictions", width=WIDTH, height=620)
        camera.shoot("review", 620)
        camera.browser.press_and_wait("1")
        camera.shoot("story", 760)


def of_the_report(camera: Camera, store: Path) -> None:
    """The first screen of the newest run's report, where there is a run."""
    reports = sorted(store.glob("runs/*/report.html"), key=lambda path: path.stat().st_mtime)
    if not reports:
        print(f"{store} holds no run with a report: no picture of one (make demo)")
        return
    camera.browser.open(reports[-1].resolve().as_uri(), width=WIDTH)
    camera.shoot("report", 900)


def main() -> None:
    store, folder = map(Path, sys.argv[1:3] if len(sys.argv) == 3 else ("data/store", "data/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as rooms:
        copy = Path(rooms) / "store"
        shutil.copytree(store, copy, ignore=shutil.ignore_patterns("runs", "prefect", "reference", "reviews"))
        with chromium(Path(rooms) / "profile") as browser:
            camera = Camera(browser, folder)
            of_the_audit(camera, versions.open_version(copy))
            of_the_review(camera, copy)
            of_the_report(camera, store)
            shutil.rmtree(copy / "reviews")
            forget(copy, annotator="otto")
            refresh(load(ROOT / "data" / "sample" / "recipe.yaml"), copy)
            of_what_changed(camera, versions.open_version(copy))


if __name__ == "__main__":
    main()
