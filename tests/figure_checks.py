"""What every figure of the book must be: as wide as the page, of large text, in dark lines."""

import io

import matplotlib
import numpy as np
from matplotlib.text import Text

from pqlib import plot_style


def contrast(color, other):
    """WCAG 2 contrast ratio of two colors."""
    light = []
    for rgb in (matplotlib.colors.to_rgb(color), matplotlib.colors.to_rgb(other)):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        light.append(np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05)
    return max(light) / min(light)


def assert_readable(finding):
    """The figure of a finding is drawn without complaint and can be read."""
    assert finding.figure.get_figwidth() == plot_style.WIDTH
    finding.figure.savefig(io.BytesIO(), format="svg")
    for text in finding.figure.findobj(Text):
        assert not text.get_text() or text.get_fontsize() >= 9 or "$" in text.get_text()
    for axes in finding.figure.axes:
        for line in axes.lines:
            assert contrast(line.get_color(), plot_style.PAPER) >= 3
