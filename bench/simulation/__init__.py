"""Many broadcasters in virtual time, for `bench scale`: the real policy code over assumed receivers.

`providers` says who lets in what, `model` what a run is given and brings, `path`, `fleet` and `coordinator`
are the run, `optimum` the bound beside it, `runs` the questions, `check` and `chart` show what came out.
"""
