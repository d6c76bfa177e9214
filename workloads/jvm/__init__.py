"""Strategies that a Java virtual machine performs."""
