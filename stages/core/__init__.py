"""What two stages may share: configuration, artifacts, launching, row formats, models, tracking.

``config``, ``artifacts``, ``errors``, ``launch``, ``schemas``, ``sources``, ``rejects`` and
``tracking`` are free of torch, so that ``flows`` can import them cheaply; ``models``, ``chat``,
``generation``, ``logprobs``, ``training`` and ``scoring`` need it.
"""
