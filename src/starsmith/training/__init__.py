"""Training: the loop on any number of ranks, optimiser and schedule, exact checkpoints, metrics, and what every
step saw.
"""
