"""`python -m pit download`: fetch published files from the Hugging Face hub into ComfyUI's model folders.

The only network access of the pack, and only when the user types the command. `hf_hub_download` deletes the
partial file of an interrupted transfer; this module therefore uses `http_get`, the function beneath it, which
can resume one. `http_get` speaks plain HTTP, so neither the Xet client nor the shared cache is involved.
"""
from __future__ import annotations

import argparse
import errno
import hashlib
import io
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers
from huggingface_hub.utils import logging as hub_logging

from ..files.published import PublishedFile, published_files

# huggingface_hub has changed its HTTP library twice; the errors of each are OSErrors or derive from this.
HTTP_LIBRARY_ERROR = HfHubHTTPError.__bases__[0]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LISTING_TIMEOUT = 20.0  # seconds
HASH_PATTERN = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")  # it becomes a file name: nothing else may pass


class DownloadError(Exception):
    """A download that cannot continue; the message is one plain sentence for the user."""


@dataclass(frozen=True)
class Download:
    """A file as the hub lists it, and the place where it belongs.

    `digest` is the SHA-256 of a large file (64 digits) or the git blob SHA-1 of a small one (40 digits).
    """

    repo: str
    path: str
    commit: str
    size: int
    digest: str
    license: str
    target: Path

    @property
    def partial(self) -> Path:
        """Where the file is stored until it is complete."""
        # Beside the target: a model folder may be a link to another disk, and only a rename within one disk
        # is atomic. Named by its content: a file that the hub has replaced since is not resumed in its old
        # bytes.
        return self.target.parent / ".incomplete" / f"{self.digest}.partial"

    @property
    def arrived(self) -> int:
        """Bytes that an interrupted transfer left behind; 0 if there are more of them than there can be."""
        bytes_there = self.partial.stat().st_size if self.partial.exists() else 0
        return bytes_there if bytes_there <= self.size else 0

    def is_content_of(self, file: Path) -> bool:
        """Whether `file` has the size and the hash that the hub states."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        # git hashes a small file with a header before its content; large files are stored by their own
        # SHA-256.
        git_header = b"blob %d\0" % self.size
        is_sha256 = len(self.digest) == 64
        hasher = hashlib.sha256() if is_sha256 else hashlib.sha1(git_header, usedforsecurity=False)
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                hasher.update(block)
        return hasher.hexdigest() == self.digest


class Hub:
    """The two requests that are made: list a repository, and fetch the missing bytes of a file."""

    def __init__(self, endpoint: str | None = None):
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        # The user's login belongs to the official hub, not to a mirror named on the command line.
        self.token = False if endpoint else None

    def list_repo(self, repo: str) -> ModelInfo:
        """The repository's commit, license, and files with sizes and hashes."""
        with self._plain_errors(repo, "the list of its files"):
            return HfApi(endpoint=self.endpoint).model_info(
                repo, files_metadata=True, timeout=LISTING_TIMEOUT, token=self.token
            )

    def fetch_missing_bytes(self, download: Download) -> None:
        """Complete `download.partial`, with a progress bar; on DownloadError it holds what has arrived."""
        # The commit of the listing, so that size and hash belong to these bytes even if the repository
        # changes meanwhile; and no compression, since a range counts the bytes that are sent, not those of
        # the file.
        url = hf_hub_url(download.repo, download.path, revision=download.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self.token, headers={"Accept-Encoding": "identity"})
        mode = "ab" if download.arrived else "wb"
        with download.partial.open(mode) as file, self._plain_errors(download.repo, download.path):
            http_get(
                url, file, resume_size=file.tell(), headers=headers,
                expected_size=download.size, displayed_filename=download.target.name,
            )

    def read_part(self, repo: str, path: str, commit: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end` of a file. Raises DownloadError, also for any others."""
        url = hf_hub_url(repo, path, revision=commit, endpoint=self.endpoint)
        asked = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        headers, part = build_hf_headers(token=self.token, headers=asked), _Part(end - start)
        with self._plain_errors(repo, path):
            http_get(url, part, headers=headers, expected_size=end - start, displayed_filename=path)
        return part.getvalue()

    @contextmanager
    def _plain_errors(self, repo: str, what: str) -> Iterator[None]:
        page = f"{self.endpoint}/{repo}"
        try:
            yield
        except HfHubHTTPError as error:
            raise DownloadError(_refusal(error.response.status_code, page, what)) from error
        except (ValueError, KeyError) as error:
            raise DownloadError(
                f"Expected the answer of a hub from {page}, got something else ({_first_line(error)}); check"
                " the address."
            ) from error
        except (OSError, HTTP_LIBRARY_ERROR) as error:
            # Not the connection's fault: the caller names the disk.
            if getattr(error, "errno", None) in DISK_FULL:
                raise
            raise DownloadError(
                f"{what} did not arrive from {page} ({_first_line(error)}); check the connection and run the"
                " same command again: what has arrived is kept."
            ) from error


class _Part(io.BytesIO):
    """Takes so many bytes and no more: a server may send a whole file whatever part of it was asked for."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def write(self, block: bytes) -> int:
        if self.tell() + len(block) > self.size:
            raise DownloadError(f"Expected {self.size} bytes of a file, got more; this hub sends no parts.")
        return super().write(block)


def _refusal(status: int, page: str, what: str) -> str:
    if status in (401, 403):
        return (
            f"{page} refuses {what} (HTTP {status}): the repository is gated, private or gone; open that"
            " page, and if it asks for an agreement, accept it and log in with `hf auth login`."
        )
    if status == 404:
        return f"{page} does not have {what} (HTTP 404): it was moved or removed."
    return f"{page} failed to send {what} (HTTP {status}); try again later."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet_hub() -> Iterator[None]:
    """No warnings, and no telemetry."""
    # Telemetry goes to the official hub, even when the user has named a mirror. The library reads its setting
    # from the environment at import, so that only the constant can still be changed.
    telemetry, verbosity = constants.HF_HUB_DISABLE_TELEMETRY, hub_logging.get_verbosity()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry
        hub_logging.set_verbosity(verbosity)


def download_names() -> tuple[str, ...]:
    """The names that can be asked for, without "all"."""
    return tuple(dict.fromkeys(file.name for file in published_files()))


def plan_downloads(names: list[str], models: Path, hub: Hub) -> list[Download]:
    """The files behind `names` as the hub lists them now.

    Raises DownloadError for an unknown name, a missing folder `models`, and a listing that cannot be trusted.
    """
    unknown = sorted(set(names) - {*download_names(), "all"})
    if unknown:
        known = ", ".join(download_names())
        raise DownloadError(f"Expected names among {known} and all, got {', '.join(unknown)}.")
    if not models.is_dir():
        raise DownloadError(
            f"Expected the models folder of a ComfyUI for --models, got {models}, which is not a folder."
        )
    wanted = [file for file in published_files() if "all" in names or file.name in names]
    listings = {repo: hub.list_repo(repo) for repo in dict.fromkeys(file.repo for file in wanted)}
    return [download for file in wanted for download in _listed(file, listings[file.repo], models)]


def _listed(file: PublishedFile, listing: ModelInfo, models: Path) -> list[Download]:
    siblings = [
        sibling for sibling in listing.siblings or []
        if sibling.rfilename == file.path or (file.is_folder and sibling.rfilename.startswith(file.path))
    ]
    if not siblings:
        raise DownloadError(f"{file.repo} does not list {file.path}: it was moved or removed.")
    stated = getattr(listing.card_data, "license", None)
    license = f"{stated!r} on the model card" if stated else file.license
    return [
        Download(
            file.repo, sibling.rfilename, listing.sha, *_size_and_digest(file.repo, sibling), license,
            models / (file.target + _name_below(file, sibling.rfilename)),
        )
        for sibling in siblings
    ]


def _name_below(file: PublishedFile, path: str) -> str:
    """What follows the published folder in `path`. Raises DownloadError if it leads out of that folder."""
    if not file.is_folder:
        return ""
    # The hub chose this name, and the user's disk must not depend on what it chooses.
    name = path[len(file.path):]
    for part in name.split("/"):
        if part in ("", ".", "..") or re.search(r"[\\:]", part) or not part.isprintable():
            raise DownloadError(f"{file.repo} lists the unsafe file name {path!r}; nothing was fetched.")
    return name


def _size_and_digest(repo: str, sibling: RepoSibling) -> tuple[int, str]:
    size, digest = (sibling.lfs.size, sibling.lfs.sha256) if sibling.lfs else (sibling.size, sibling.blob_id)
    if not isinstance(size, int) or not HASH_PATTERN.fullmatch(str(digest)):
        raise DownloadError(
            f"Expected a size and a hash of {sibling.rfilename!r} in {repo}, got {size!r} and {digest!r}; it"
            " cannot be verified, and nothing was fetched."
        )
    return size, digest


def download_published(
    names: list[str], models: Path, *, endpoint: str | None = None, dry_run: bool = False, force: bool = False
) -> None:
    """Fetch the published files of `names` ("all" for all) into `models`, ComfyUI's models folder.

    A file gets its final name only if its size and hash are right; a partial one waits for the next call.
    Files that are already right are kept; others in their place are replaced only with `force`. `dry_run`
    only prints the list. Raises DownloadError, and OSError if the disk refuses.
    """
    hub = Hub(endpoint)
    downloads = plan_downloads(names, models, hub)
    missing = [download for download in downloads if not download.is_content_of(download.target)]
    for download in downloads:
        _print_download(download, kept=download not in missing, force=force)
    total = sum(download.size - download.arrived for download in missing)
    print(f"{len(missing)} of {len(downloads)} files to fetch, {_human(total)}")
    if dry_run:
        return
    # All checks before the first transfer: gigabytes later it would be too late to learn of a conflict.
    if not force:
        _refuse_to_overwrite(missing)
    _require_space(missing)
    for download in missing:
        _fetch(download, hub)


def _print_download(download: Download, kept: bool, force: bool) -> None:
    if kept:
        state = "kept, already there"
    elif download.target.exists():
        state = "to replace" if force else "a different file is there, replaced only with --force"
    else:
        state = "to fetch"
    print(f"{download.target}  {_human(download.size)}  {state}")
    print(f"    from {download.repo}/{download.path}, license: {download.license}")


def _human(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} bytes"


def _refuse_to_overwrite(missing: list[Download]) -> None:
    different = [str(download.target) for download in missing if download.target.exists()]
    if different:
        raise DownloadError(
            f"{', '.join(different)} differs from what is published; move it away or replace it with --force."
        )


def _require_space(missing: list[Download]) -> None:
    """Raise DownloadError unless each disk has room for what goes there: model folders can be on several."""
    folders: dict[int, Path] = {}
    needed: Counter[int] = Counter()
    for download in missing:
        folder = next(parent for parent in download.target.parents if parent.exists())
        device = folder.stat().st_dev
        folders[device] = folder
        needed[device] += download.size - download.arrived
    for device, folder in folders.items():
        free = shutil.disk_usage(folder).free
        if needed[device] > free:
            raise DownloadError(
                f"Expected {_human(needed[device])} free on the disk of {folder}, got {_human(free)}; make"
                " room first."
            )


def _fetch(download: Download, hub: Hub) -> None:
    download.partial.parent.mkdir(parents=True, exist_ok=True)
    if download.arrived:
        print(f"resuming {download.target.name} after {_human(download.arrived)}")
    try:
        hub.fetch_missing_bytes(download)
        # Wrong bytes are deleted, or every further attempt would resume after them and fail again.
        if not download.is_content_of(download.partial):
            download.partial.unlink()
            raise DownloadError(
                f"{download.path} of {download.repo} arrived with another hash than the hub states and was"
                " deleted; run the command again."
            )
        os.replace(download.partial, download.target)
    finally:
        _remove_if_empty(download.partial)
    print(f"written and verified: {download.target}")


def _remove_if_empty(partial: Path) -> None:
    if partial.exists() and not partial.stat().st_size:
        partial.unlink()
    with suppress(OSError):  # other partial files may be waiting there
        partial.parent.rmdir()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m pit download`."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join((*download_names(), "all")))
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="a ComfyUI's models folder")
    parser.add_argument("--dry-run", action="store_true", help="list files, sizes, licenses and targets only")
    parser.add_argument("--force", action="store_true", help="replace existing files that differ")
    parser.add_argument("--endpoint", metavar="URL", help="a mirror of the hub; your login is not sent to it")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code; every failure is one sentence on stderr."""
    try:
        with quiet_hub():
            download_published(
                args.names, args.models, endpoint=args.endpoint, dry_run=args.dry_run, force=args.force
            )
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = error.filename or args.models
        print(f"error: cannot use {place} ({error.strerror}); what has arrived is kept.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what has arrived is kept, and the same command resumes it.", file=sys.stderr)
        return 130
    return 0
