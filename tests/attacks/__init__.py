"""Attacks with one login of a deployment, on real servers with the shipped users."""
