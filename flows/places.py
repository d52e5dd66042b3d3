"""Where the files and folders lie that a configuration names."""

from pathlib import Path

from flows.environment import CHECKOUT
from stages.core.config import DataSource, PipelineConfig
from stages.core.errors import UserError
from stages.core.sources import source_files

DATA_KINDS = ("documents", "sft", "preferences", "prompts", "labelled")


def source_files_by_kind(config: PipelineConfig) -> dict[str, tuple[Path, ...]]:
    """The user's data files by the field of ``CollectInputs`` that they belong to.

    Raises:
        UserError: a path of the configuration names no file.
    """
    files: dict[str, tuple[Path, ...]] = {}
    for kind in DATA_KINDS:
        source: DataSource = getattr(config.collect, kind)
        name = f"collect.{kind}"
        if source.held_out_paths and not source.is_given:
            raise UserError(f"{name}.held_out_paths is given without {name}.paths")
        files[kind] = setting_files(source.paths, f"{name}.paths")
        files[f"{kind}_held_out"] = setting_files(source.held_out_paths, f"{name}.held_out_paths")
    return files


def setting_files(paths: tuple[str, ...], setting: str) -> tuple[Path, ...]:
    """The files that a setting's paths, globs and folders mean.

    Raises:
        UserError: there is none, naming the setting.
    """
    try:
        return source_files(paths)
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None


def find_file(text: str) -> Path | None:
    """A file or folder: a relative path counts from the current folder, then from the checkout."""
    found = (root / Path(text).expanduser() for root in (Path.cwd(), CHECKOUT))
    return next((path.resolve() for path in found if text and path.exists()), None)


def scorer_path(setting: str, place: str) -> Path:
    """The folder of a reward model or classifier, or the file of a function scorer. The chain's own
    classifier has no place yet: see ``is_chain_classifier``.

    Raises:
        UserError: it is neither.
    """
    for folder in (place, place.partition(":")[0]):
        path = find_file(folder)
        if path is not None and path.is_dir():
            return path
    file, _, function = place.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise UserError(
            f"{setting}: {place!r} is neither file.py:function nor a folder here, alone or with "
            f":LABEL; looked in {Path.cwd()}"
        )
    path = find_file(file)
    if path is None or not path.is_file():
        raise UserError(f"{setting}: {file}: no such file; looked in {Path.cwd()}")
    return path
