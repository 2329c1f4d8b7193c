"""The run: inputs → frames → detections → poses → track ids → files, in threads connected by queues."""
