"""The book's figures, and interactive figures that work without a kernel.

All chapters; the interactive ones stand in `forward_process`, `reverse_process`, `the_bound` and `sampling`.
"""
