"""Strategies of the field as pipelines of recipes: shrink and improve, or grow, improve and shrink.

Menghani, "Efficient Deep Learning: A Survey on Making Deep Learning Models Smaller, Faster, and Better", ACM Computing
Surveys, 2023, section 3: the one where the footprint is too large, the other where the quality is too low.
"""
