"""A small world of mail receivers and its DNS, for `emass demo`, tests and benches.

Everything lives on loopback addresses (127.x.y.z, one shared high port) and needs no privilege.
`spec` says what the world is, as data; `manners` how each provider behaves; `world` runs it in this
process, `process` in one of its own, so that it outlives a killed engine and uses another core.
Whatever a provider decides about a recipient follows from a hash of (seed, recipient, kind), so a
report can be predicted.
"""
