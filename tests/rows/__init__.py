"""The rows of tests.packets, by theme."""
