"""One machine: the root supervisor, the processes it runs, and what is told of them."""
