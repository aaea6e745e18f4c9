"""Services: processes that stand beside the engine and face other people's programs."""
