"""A figure with controls in JupyterLab that is a plain picture wherever there is no kernel: in the book, in a stored run."""

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
    """``draw`` with a control for each of its arguments; shown as the figure of the ``start`` values and, live, as widgets.

    choices  argument -> its values: a slider for numbers, a list for everything else
    start    argument -> the value of the static picture; the first one where it is not named

    Both forms go into one output, and the page or the notebook shows the one that it can. Where output is stored
    (papermill, nbval, see :mod:`aimfair.progress`), or ipywidgets is not installed, there is the picture alone. Raises
    AimfairError for a start value that is no choice.
    """

    def __init__(self, draw: Callable[..., Figure], choices: Mapping[str, Sequence[Any]], **start: Any) -> None:
        self.draw, self.choices = draw, {name: list(values) for name, values in choices.items()}
        self.start = {name: start.pop(name, values[0]) for name, values in self.choices.items()}
        wrong = [*start, *(name for name, value in self.start.items() if value not in self.choices[name])]
        if wrong:
            raise AimfairError(f"no such choice for {wrong[0]}: choose among {self.choices.get(wrong[0], 'nothing')}")

    def figure(self) -> Figure:
        """The static picture."""
        return self.draw(**self.start)

    def widget(self) -> Any:
        """The controls above the figure, which is drawn again when one of them moves."""
        import ipywidgets
        from IPython.display import display

        controls = {}
        for name, values in self.choices.items():
            given = {"options": values, "value": self.start[name], "description": name}
            if all(isinstance(value, int | float) for value in values):
                controls[name] = ipywidgets.SelectionSlider(**given, continuous_update=False)
            else:
                controls[name] = ipywidgets.Dropdown(**given)
        shown = ipywidgets.interactive_output(lambda **given: display(self.draw(**given)), controls)
        return ipywidgets.VBox([ipywidgets.HBox(list(controls.values())), shown])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        picture = base64.b64encode(plots.png(self.figure())).decode()
        words = ", ".join(f"{name}={value}" for name, value in self.start.items())
        bundle = {"image/png": picture, "text/plain": f"<Figure: {words}>"}
        if not quiet():
            with suppress(ImportError):  # without ipywidgets the picture is there all the same
                bundle = self.widget()._repr_mimebundle_() | bundle
        return bundle
