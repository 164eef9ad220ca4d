r"""Executors in processes of their own: whatever a model does there, the gateway goes on.

    gateway (`host`, `slot`) --control--> template --fork--> executor of each slot
             \------------- one socket and two areas of shared memory -------/

The template opens the models and runs none. An executor is a copy of it, made in some milliseconds, which shares the
memory of the models with all others.
"""
