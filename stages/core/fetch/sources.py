"""Any source, by its kind."""

from pathlib import Path

from stages.core.config import FeedbackSource, HubSource, S3Source, Source, SQLSource, UrlSource
from stages.core.errors import without_passwords
from stages.core.fetch.snapshots import Progress, Snapshot, locked


def fetch(source: Source, cache: Path, progress: Progress) -> Snapshot:
    """The source's content as it is now, fetched only where it has changed.

    Raises:
        UserError: one line with the cure.
    """

    def wait() -> None:
        print(f"{source_name(source)}: another run is fetching it; waiting for that", flush=True)

    with locked(cache, source, wait):
        if isinstance(source, UrlSource):
            from stages.core.fetch.urls import fetch_url

            return fetch_url(source, cache, progress)
        if isinstance(source, HubSource):
            from stages.core.fetch.hub import fetch_hub

            return fetch_hub(source, cache, progress)
        if isinstance(source, SQLSource):
            from stages.core.fetch.databases import fetch_sql

            return fetch_sql(source, cache, progress)
        if isinstance(source, S3Source):
            from stages.core.fetch.s3 import fetch_s3

            return fetch_s3(source, cache, progress)
        from stages.core.fetch.feedback import fetch_feedback

        return fetch_feedback(source, cache, progress)


def source_name(source: Source) -> str:
    """How messages call it."""
    if isinstance(source, FeedbackSource):
        return f"judgments in {source.experiment}"
    return source.name if isinstance(source, HubSource) else without_passwords(source.url)
