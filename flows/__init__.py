"""What runs when: the pipeline as a Prefect flow, its profiles, the servers and the command line.

Nothing here imports torch or a trainer; a stage's work is done in a process of its own.
"""
