"""Memorization: does a synthetic set depend on who was in the training data, and whom did it copy?"""
