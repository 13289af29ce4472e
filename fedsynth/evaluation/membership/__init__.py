"""Membership inference: can an attacker tell members from patients who were never seen?"""
