"""The server: one port on which programs and people elsewhere reach the fleet, by HTTP.

It translates: what may be asked for, and by whom, is decided where every other door's requests are decided.
"""
