"""The order of the prompts; which ones are read is tested with the stage."""

from stages.ppo.prompts import prompt_of_episode


def test_each_pass_over_the_prompts_takes_every_prompt_once():
    passes = [
        [prompt_of_episode(5 * number + i, 5, seed=3) for i in range(5)] for number in range(6)
    ]
    assert all(sorted(numbers) == [0, 1, 2, 3, 4] for numbers in passes)
    assert len({tuple(numbers) for numbers in passes}) > 1


def test_the_order_depends_on_the_seed_and_on_nothing_before():
    def order(seed):
        return [prompt_of_episode(episode, 20, seed) for episode in range(20, 40)]

    assert order(0) == order(0) != order(1)
