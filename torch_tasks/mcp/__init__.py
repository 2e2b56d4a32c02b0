"""The door for models: the operations as tools and resources of the Model Context Protocol.

Which they are is in :mod:`torch_tasks.mcp.tools` and :mod:`torch_tasks.mcp.resources`; nothing is carried out here.
"""
