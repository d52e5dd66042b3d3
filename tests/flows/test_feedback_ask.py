"""The options of ``rlhf feedback ask``; the flow itself is in test_sample_pairs_flow."""

import pytest

from flows import cli


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "sample_pairs.num_pair=3"], "did you mean 'sample_pairs.num_pairs'?"),
        (["--set", "num_pairs"], "must be KEY=VALUE"),
        (["--set", "sample_pairs.choice=best"], "'disagreement', 'margin' or 'random'"),
        (["--set", "queue.overlap_share=2"], "queue.overlap_share = '2' is not allowed"),
    ],
)
def test_a_setting_that_is_not_there_is_one_line(options, message, data_root, capsys):
    assert cli.main(["feedback", "ask", *options]) == cli.USER_ERROR
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["feedback", "ask", "--model", "gpt"])
    assert "invalid choice: 'gpt'" in capsys.readouterr().err
