"""Automation: searching architectures and settings of training, on the rows that training may see."""
