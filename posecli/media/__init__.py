"""Reading and writing of photos and videos; finding of inputs."""
