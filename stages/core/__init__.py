"""What two stages may share: configuration, artifacts, launching, row formats, models, tracking.

``config``, ``artifacts``, ``errors``, ``launch``, ``schemas``, ``sources``, ``rejects``,
``scorer_places``, ``batching`` and ``tracking`` are free of torch, so that ``flows`` can import
them cheaply; the others need it.
"""
