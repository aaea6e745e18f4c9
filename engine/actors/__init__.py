"""The engine's actors, one a file. Their words are in `messages`; who starts whom is in `engine.tree`."""
