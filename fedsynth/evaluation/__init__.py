"""Measuring: what a synthetic set leaks and what it is good for. It sees image sets, never a trainer."""
