"""Many machines that work as one: who belongs to it, what each may do, and the keys that each gets."""
