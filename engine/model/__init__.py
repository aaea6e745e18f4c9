"""The nouns of the engine: frozen values that every layer above shares.

Nothing here touches a clock, a socket or a file. Words are those of `docs/GLOSSARY.md`.
"""
