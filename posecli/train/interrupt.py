"""Signals between steps, never inside one."""

from posecli.interrupt import deferred as whole_step

__all__ = ["whole_step"]
