"""Computes streams and consumers, compares them with those of NATS, and sets them up."""

from __future__ import annotations
