"""What is measured on a content: pure functions from Arrow tables of texts to columns.

A signal says what a text is, never whether it stays: thresholds are the policies' and cost no reading of text.
Each module has a `VERSION` that changes when any of its columns could, and, where it stands on a library's
data, a function that names that data's version.
"""
