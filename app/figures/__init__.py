"""Figures as plain Plotly dicts: arrays in, a dict out. No Flask, no SQL, no clock.

Colours are names of the style sheet's custom properties ("--train"): the browser puts the colours of the
theme in their place, so one figure serves light and dark.
"""
