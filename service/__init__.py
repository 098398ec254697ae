"""The gateway process: a request in, a prediction out, one fact left behind."""

from service.gateway import Gateway

__all__ = ["Gateway"]
