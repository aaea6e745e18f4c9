"""The broadcaster: one process that turns accepted envelopes into delivered mail.

Read `docs/ARCHITECTURE.md` for the layers and `docs/LIFE_OF_A_MESSAGE.md` for one message's way
through this package.
"""
