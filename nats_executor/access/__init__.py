"""Permissions of users, and accounts. Pure."""

from __future__ import annotations
