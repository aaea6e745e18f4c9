"""One campaign over many broadcasters: who gets which chunk, what became of it, and the report."""
