"""Backups of a whole fleet: what lies on its broker and on its machines' disks, in one file, and back again."""
