"""What each step of the pipeline does.

One module (or package) a stage, each with one public function

    run(config, inputs, compute, out_dir) -> (outputs, metrics)

where every argument and result is a frozen pydantic model of ``stages.core.config`` and ``out_dir``
is a folder of the stage's own. Stages never import each other and never import prefect: what runs
when is decided in ``flows``.
"""
