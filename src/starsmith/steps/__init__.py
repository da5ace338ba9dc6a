"""The steps of the road: each binds one job of a room to its inputs, its place in the store and its key.

`data` goes from sources to kept files, `learning` from documents to an evaluated model, `publishing` to the
release and the report. Nothing is decided here; a rule, a threshold or an algorithm belongs to a room.
"""
