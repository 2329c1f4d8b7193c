"""Measurements of `posecli bench`: a whole run and its stages, networks, the machine's matrix products, start-up."""
