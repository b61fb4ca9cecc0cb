"""The embedded default: brings the tools, starts and supervises the services as local processes."""
