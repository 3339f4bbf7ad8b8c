"""Devices: profiles, measurements, the store they land in, and the latency model made from them.

Requirements kept here: a figure says whether it was measured, and on what, or is estimated; a measurement runs in a
process of its own; nothing here imports torch.
"""
