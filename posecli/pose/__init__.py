"""SimCC: configuration, network, codec, crops, estimator."""
