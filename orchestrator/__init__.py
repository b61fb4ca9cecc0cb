"""The doors (HTTP, Kafka consumer) over one pipeline: from a request to a ranked answer."""
