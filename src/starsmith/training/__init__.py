"""Training: the loop, optimiser and schedule, exact checkpoints, metrics, and what every step saw.

One process on one device. Several devices, gradient accumulation and lower precision are not here yet; a launch
by several processes is refused.
"""
