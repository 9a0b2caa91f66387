"""Where images come from: a folder, a video file, a camera, the embedded scenes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import torch
from torch import Tensor

from featcomp.errors import FeatcompError, InvalidArgumentError
from featcomp.extras import needs
from featcomp.images import image_files, read_image, resize

_SCENE_FRAMES = 150
_SCENE_FPS = 15.0
_FOLDER_FPS = 20.0
_OPENINGS = 5
_NETWORK = ("rtsp", "rtmp", "http", "https", "udp")


class Captured(NamedTuple):
    """An image [3, H, W] as the model takes it, when it was captured (nanoseconds since 1970), and where it is from."""

    image: Tensor
    captured_ns: int
    name: str = ""


class SourceError(FeatcompError, OSError):
    """A camera or a video that gives no images."""


def open_source(
    where: str,
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    frames: int | None = None,
    realtime: bool = False,
) -> Iterator[Captured]:
    """Images as float32 [3, H, W], RGB in [0, 1].

    Args:
        where: a folder of images, a video file, `camera://0` (or a device path, `camera:///dev/video0`), the address of
            a network camera (rtsp, http), or `scenes://video` (`?index=3&split=test`), a video of the embedded scenes.
        size: height and width to scale to (bilinear); cameras of several sizes need it.
        fps: frames a second; by default the source's own, for a folder 20.
        frames: at most so many.
        realtime: files go by at `fps` as before a camera: what is not taken in time is skipped.

    Raises:
        InvalidArgumentError: there is no such source.
        SourceError: a camera or video that gives no images.
    """
    parts = urlsplit(where)
    if parts.scheme == "scenes":
        images, rate = _scenes(parts.netloc, parse_qs(parts.query), fps, frames or _SCENE_FRAMES), fps or _SCENE_FPS
    elif parts.scheme == "camera" or parts.scheme in _NETWORK:
        device = (parts.path or parts.netloc) if parts.scheme == "camera" else where
        return itertools.islice(_scaled(_Camera(int(device) if device.isdecimal() else device), size), frames)
    elif (path := Path(where)).is_dir():
        if not (files := list(image_files(path))):
            raise InvalidArgumentError(f"there are no images in the folder {path}")
        images, rate = ((read_image(file), file.name) for file in files), fps or _FOLDER_FPS
    elif path.is_file():
        images, rate = _video(path)
        rate = fps or rate
    else:
        raise InvalidArgumentError(f"no source {where!r}: give a folder, a video file, camera://0 or scenes://video")
    timed = _paced(images, rate) if realtime else ((image, name, time.time_ns()) for image, name in images)
    return itertools.islice(_scaled(timed, size), frames)


def _scaled(images: Iterable[tuple[Tensor, str, int]], size: tuple[int, int] | None) -> Iterator[Captured]:
    for image, name, captured_ns in images:
        scaled = image if size is None or tuple(image.shape[1:]) == size else resize(image, size)
        yield Captured(scaled.float() / 255, captured_ns, name)


def _paced(images: Iterable[tuple[Tensor, str]], fps: float) -> Iterator[tuple[Tensor, str, int]]:
    """Every image at its time; those whose time, and that of the next one, is over are skipped.

    Time begins when the second one is asked for: a client prepares itself with the first.
    """
    start = 0.0
    for index, (image, name) in enumerate(images):
        if index == 1:
            start = time.monotonic()
        wait = start + (index - 1) / fps - time.monotonic() if index else 0.0
        if wait > 0:
            time.sleep(wait)
        elif wait < -1 / fps:
            continue
        yield image, name, time.time_ns()


def _scenes(what: str, options: dict[str, list[str]], fps: float | None, frames: int) -> Iterator[tuple[Tensor, str]]:
    if what != "video" or options.keys() - {"index", "split"}:
        raise InvalidArgumentError(f"no source scenes://{what}: scenes://video?index=0&split=test is one")
    with needs("demo"):
        from featcomp.scenes import video
    index, split = int(options.get("index", ["0"])[0]), options.get("split", ["test"])[0]
    made = video(index, frames, split, fps=fps or _SCENE_FPS)  # now: drawing takes longer than a frame's time
    return ((scene.image, f"{split}/{index}/{number}") for number, scene in enumerate(made))


def _video(path: Path) -> tuple[Iterator[tuple[Tensor, str]], float]:
    with needs("edge"):
        import cv2
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path} cannot be read as a video")

    def images() -> Iterator[tuple[Tensor, str]]:
        try:
            for number in itertools.count():
                got, picture = capture.read()
                if not got:
                    return
                yield _rgb(picture), f"{path.name}/{number}"
        finally:
            capture.release()

    return images(), capture.get(cv2.CAP_PROP_FPS) or _FOLDER_FPS


def _rgb(picture: Any) -> Tensor:
    """OpenCV's uint8 [H, W, 3], BGR, as [3, H, W], RGB."""
    return torch.from_numpy(picture).flip(2).permute(2, 0, 1).contiguous()


class _Camera:
    """The newest image of a camera, whenever one is asked for; opens it again when it fails."""

    def __init__(self, device: int | str) -> None:
        with needs("edge"):
            import cv2
        self._open, self._device = cv2.VideoCapture, device
        self._new = threading.Condition()
        self._latest: tuple[Any, int, int] | None = None
        self._error: SourceError | None = None
        self._stopped = False

    def __iter__(self) -> Iterator[tuple[Tensor, str, int]]:
        thread = threading.Thread(target=self._grab, name="featcomp-camera", daemon=True)
        thread.start()
        seen = 0
        try:
            while True:
                with self._new:
                    while self._error is None and (self._latest is None or self._latest[2] == seen):
                        self._new.wait()
                    if self._error is not None:
                        raise self._error
                    assert self._latest is not None
                    picture, captured_ns, seen = self._latest
                yield _rgb(picture), str(seen), captured_ns
        finally:
            self._stopped = True
            thread.join()

    def _grab(self) -> None:
        number, failures = 0, 0
        while not self._stopped:
            capture = self._open(self._device)
            while not self._stopped:
                got, picture = capture.read()
                if not got:
                    break
                number, failures = number + 1, 0
                with self._new:
                    self._latest = (picture, time.time_ns(), number)
                    self._new.notify()
            capture.release()
            failures += 1
            if failures == _OPENINGS:
                with self._new:
                    self._error = SourceError(f"the camera {self._device} gives no images")
                    self._new.notify()
                return
            if not self._stopped:
                time.sleep(0.2 * failures)
