"""posecli: 2-D human poses from photos and videos, and a workbench for SimCC models."""

__version__ = "0.1.0"
