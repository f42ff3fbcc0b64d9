"""aimfair: AIM-Fair as a research book that runs.

The library reads in the order of the method: faces and data sets, sampling of a biased subset,
prompts and diffusion, the classifier, its gradients, the mask, the methods, the metrics, the runs.
"""

__version__ = "0.1.0"
