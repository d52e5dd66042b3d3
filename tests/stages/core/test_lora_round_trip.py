from pathlib import Path

import pytest
from peft import PeftModel

from stages.core import lora_round_trip


def test_an_adapter_comes_back_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lora_round_trip.round_trip(tmp_path)
    assert found["adapter"] == 0.0
    assert found["merged"] < 1e-6
    assert found["effect"] > 0.01
    assert lora_round_trip.main() == 0
    assert "adapter=0.0e+00" in capsys.readouterr().out


def test_an_adapter_whose_weights_get_lost_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = PeftModel.from_pretrained.__func__

    def forgets(cls, model, folder, **options):
        loaded = load(cls, model, folder, **options)
        for name, weight in loaded.named_parameters():
            if "lora_B" in name:
                weight.zero_()
        return loaded

    monkeypatch.setattr(PeftModel, "from_pretrained", classmethod(forgets))
    assert lora_round_trip.main() == 1
    assert "adapter=0.0e+00" not in capsys.readouterr().out
