"""The ground floor of the data side: tables by content, atomic commits, SWHIDs and the engine.

Rooms above meet only in the tables whose schemas `schema.py` holds. Nothing here knows a source, a rule or a
model.
"""
