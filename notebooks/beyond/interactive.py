"""A figure with controls in JupyterLab that is a plain picture where no kernel runs, as in the book."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from matplotlib.figure import Figure

from aimfair import plots
from aimfair.environment import AimfairError
from aimfair.progress import quiet


class Explorer:
    """``draw`` with a control for each argument: a picture of the ``start`` values, and live as widgets.

    choices  argument -> its values: a slider for numbers, a list for everything else
    start    argument -> its value in the picture; the first one where it is not named

    One output holds both forms, and the page or the notebook shows the one that it can. Where output is
    stored (see :mod:`aimfair.progress`) or ipywidgets is not installed, it holds the picture alone. Raises
    AimfairError for a start value that is no choice.
    """

    def __init__(
        self, draw: Callable[..., Figure], choices: Mapping[str, Sequence[Any]], **start: Any
    ) -> None:
        self.draw, self.choices = draw, {name: list(values) for name, values in choices.items()}
        self.start = {name: values[0] for name, values in self.choices.items()} | start
        for name, value in self.start.items():
            if value not in self.choices.get(name, ()):
                known = self.choices.get(name, "nothing")
                raise AimfairError(f"no such choice for {name}: choose among {known}")

    def widget(self) -> Any:
        """The controls above the figure, which is drawn again when one of them moves."""
        import ipywidgets
        from IPython.display import display

        controls = {}
        for name, values in self.choices.items():
            settings = {"options": values, "value": self.start[name], "description": name}
            if all(isinstance(value, int | float) for value in values):
                controls[name] = ipywidgets.SelectionSlider(**settings, continuous_update=False)
            else:
                controls[name] = ipywidgets.Dropdown(**settings)
        shown = ipywidgets.interactive_output(
            lambda **given: display(self.draw(**given)), controls
        )
        return ipywidgets.VBox([ipywidgets.HBox(list(controls.values())), shown])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        picture = base64.b64encode(plots.png(self.draw(**self.start))).decode()
        words = ", ".join(f"{name}={value}" for name, value in self.start.items())
        bundle = {"image/png": picture, "text/plain": f"<Figure: {words}>"}
        if not quiet():
            with suppress(ImportError):  # without ipywidgets the picture remains
                bundle = self.widget()._repr_mimebundle_() | bundle
        return bundle
