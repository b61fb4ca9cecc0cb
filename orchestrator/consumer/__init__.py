"""The event consumer: Kafka into the online store and the event lake (`python -m orchestrator.consumer`)."""
