"""Running networks: devices and runtimes."""
