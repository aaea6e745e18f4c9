"""The whole engine on a jumping clock, with a network, a disk and a DNS that misbehave by seed.

`scenario` draws from a seed what the world is like, how the engine is configured and what goes wrong;
`run` lives through it; `checks` judges what both sides have witnessed. `python -m tests.sim --seed 7
--verbose` shows one run, `python -m tests.sim --seeds 0..10000` looks for a seed that fails.

A seed is a run, twice the same: trio's order of tasks comes from the seed too (`run.deterministic`), and
nothing in a run depends on the order of a set of strings or on the real clock.
"""
