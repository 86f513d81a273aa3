"""Computes who may do what: permissions of users, and accounts. Pure."""

from __future__ import annotations
