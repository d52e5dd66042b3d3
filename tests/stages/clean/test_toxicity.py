import polars as pl
import pytest

from stages.clean.shards import clean_shards, cut
from stages.clean.toxicity import mark_toxic
from stages.core.artifacts import make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.errors import UserError
from stages.core.schemas import write_jsonl
from stages.core.scorer_places import MANIFEST_FILE

SOURCE = """
def rude(prompts, texts):
    assert max(map(len, texts)) <= 500
    return [float("idiot" in text) for text in texts]
"""
PROSE = """\
The ferry leaves at nine, and whoever is late waits until noon in the small house at the pier.
Nobody minds, since the keeper makes coffee there and tells of the winter when the lake froze over.
His daughter keeps bees behind the chapel; their honey tastes of lime trees and a little of smoke.
In autumn they close the shutters, count the boats and carry the benches up to the boathouse loft.
A heron stands in the reeds most mornings, as still as a post, until the first oars frighten it.
"""


@pytest.fixture
def scorer(tmp_path):
    path = tmp_path / "scorer.py"
    path.write_text(SOURCE)
    return make_artifact("scorer", path), f"{path}:rude"


def rules(tmp_path, scorer, kind, rows, **settings):
    folder = tmp_path / kind
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "held_out.jsonl", [])
    artifact, place = scorer
    config = CleanConfig(toxicity_scorer=place, **settings)
    shards = cut(kind, make_artifact(kind, folder), tmp_path)
    clean_shards(shards, config, None, Compute())
    mark_toxic(shards, config, artifact, Compute())
    return pl.concat(pl.read_parquet(shard.table) for shard in shards)["rule"].to_list()


def test_the_worst_window_of_a_document_decides(tmp_path, scorer):
    rude = PROSE.replace("A heron", "You idiot, a heron")
    assert len(rude) > 500
    assert rules(tmp_path, scorer, "documents", [{"text": PROSE}, {"text": rude}]) == [
        None,
        "toxicity",
    ]


def test_demonstrations_are_scored_and_pairs_are_not(tmp_path, scorer):
    rows = [{"prompt": "Hi", "completion": "Hello."}, {"prompt": "Hi", "completion": "Go, idiot."}]
    assert rules(tmp_path, scorer, "sft", rows) == [None, "toxicity"]
    pairs = [{"prompt": "Hi", "chosen": "Hello.", "rejected": "Go, idiot."}]
    assert rules(tmp_path, scorer, "preferences", pairs) == [None]


def test_the_rule_can_be_skipped(tmp_path, scorer):
    rows = [{"prompt": "Hi", "completion": "Go, idiot."}]
    assert rules(tmp_path, scorer, "sft", rows, skip={"sft": ["toxicity"]}) == [None]


def test_a_reward_model_is_no_scorer_of_text(tmp_path, scorer):
    folder = tmp_path / "rewards"
    folder.mkdir()
    (folder / MANIFEST_FILE).write_text("{}")
    place = make_artifact("scorer", folder), str(folder)
    with pytest.raises(UserError, match=r"clean\.toxicity_scorer: .* is a reward model"):
        rules(tmp_path, place, "sft", [{"prompt": "Hi", "completion": "Ho"}])
