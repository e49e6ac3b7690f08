"""Figures: arrays and estimates in, a matplotlib Figure out; nothing is computed from a trace, shown or saved here."""
