"""Everything that knows mail: composition, protocol, policy, queues, spool, network."""
