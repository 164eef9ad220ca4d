"""The report of a load test, and of two held against each other: one HTML file that loads nothing and runs nothing."""
