"""Operators of ATen written with plainer ones, for converters that do not know them, or know them wrongly.

Each function has the arguments of its operator. It returns ``NotImplemented`` where the operator is plain already.
"""
