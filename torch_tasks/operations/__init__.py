"""Every act that a caller may ask for, declared once: its request, its reply, and the right that it takes.

One file for one noun. The doors (Python, the command line, the desk, the server, MCP) translate what they are given
into these requests, and do nothing else.
"""
