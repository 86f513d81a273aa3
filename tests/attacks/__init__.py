"""What whoever has one login of a deployment tries, on real servers with the shipped users."""
