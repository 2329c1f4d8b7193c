"""Reading and writing of weights files: safetensors with a header that describes the model."""
